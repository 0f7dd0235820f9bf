"""qscope's side of bench-extraction."""

from __future__ import annotations

from extraction_clock import measure, read_settings, token_ids

settings = read_settings()

import torch  # noqa: E402

from qscope import __version__  # noqa: E402
from qscope.models import capture_residuals, load_model  # noqa: E402
from qscope.sae import formats  # noqa: E402
from qscope.sae.kernels import encode  # noqa: E402
from qscope.sae.topk import dense_codes  # noqa: E402
from qscope.v1.model_pb2 import PRECISION_FLOAT32, ModelOptions  # noqa: E402

torch.set_num_threads(settings["threads"])
loaded = load_model(settings["model"], ModelOptions(precision=PRECISION_FLOAT32))
saes = formats.load(settings["folder"] + "/sae/native")
ids_BT = torch.from_numpy(token_ids(settings))


@torch.no_grad()
def bare() -> None:
    loaded.model(input_ids=ids_BT, use_cache=False, logits_to_keep=1)


@torch.no_grad()
def codes() -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    resid = capture_residuals(loaded, list(saes), ids_BT)
    return {layer: encode(saes[layer], resid_BTD.flatten(0, 1)) for layer, resid_BTD in resid.items()}


def dense():
    return {layer: dense_codes(*found, saes[layer].d_sae).numpy() for layer, found in codes().items()}


measure(settings, __version__, bare, codes, dense)
