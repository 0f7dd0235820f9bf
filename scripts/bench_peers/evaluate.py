"""One measure for all: FVU of every SAE on the same held-out tokens, through the same code.

Usage: evaluate.py REQUEST.json, with keys model, tokens (.npy), and saes: {name: {folder, k}}. Prints JSON.
Each competitor's SAE is brought into the form of qscope first: SAELens' by the reader of its layout, the others'
weights by folding the b_dec that their encoders subtract. The first token of each sequence is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from qscope.models import capture_residuals, load_model
from qscope.sae import formats
from qscope.sae.topk import TopKSae
from qscope.v1 import model_pb2


def read(folder: Path, k: int) -> dict[int, TopKSae]:
    """SAEs by layer."""
    plain = sorted(folder.glob("layer*.safetensors"))
    if not plain:
        return formats.load(folder)
    saes = {}
    for path in plain:
        layer = int(path.stem.removeprefix("layer"))
        weights = {name: tensor.double() for name, tensor in load_file(path).items()}
        b_enc_F = weights["b_enc"] - weights["W_enc"] @ weights["b_dec"]
        parts = (weights["W_enc"], b_enc_F, weights["W_dec"], weights["b_dec"])
        saes[layer] = TopKSae(*(part.float().contiguous() for part in parts), k=k, layer=layer)
    return saes


@torch.no_grad()
def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(request["threads"])
    loaded = load_model(request["model"], model_pb2.ModelOptions(precision=model_pb2.PRECISION_FLOAT32))
    saes = {name: read(Path(item["folder"]), item["k"]) for name, item in request["saes"].items()}
    layers = sorted(next(iter(saes.values())))
    ids_BT = torch.from_numpy(np.load(request["tokens"]).astype(np.int64))
    parts = [capture_residuals(loaded, layers, part) for part in ids_BT.split(16)]
    result: dict[str, dict] = {name: {} for name in saes}
    for layer in layers:
        x_BD = torch.cat([part[layer][:, 1:].flatten(0, 1) for part in parts])
        variance = (x_BD - x_BD.mean(0)).double().square().sum()
        for name, by_layer in saes.items():
            error = torch.zeros((), dtype=torch.float64)
            fired_F = torch.zeros(by_layer[layer].d_sae, dtype=torch.bool)
            count = 0
            for part_BD in x_BD.split(4096):
                values_BK, indices_BK = by_layer[layer].encode(part_BD)
                error += (by_layer[layer].decode(values_BK, indices_BK) - part_BD).double().square().sum()
                fired_F[indices_BK[values_BK > 0]] = True
                count += int((values_BK > 0).sum())
            result[name][layer] = {
                "fvu": float(error / variance),
                "l0": count / len(x_BD),
                "silent_share": float((~fired_F).float().mean()),
            }
    print(json.dumps({"tokens": int(ids_BT[:, 1:].numel()), "saes": result}))


if __name__ == "__main__":
    main()
