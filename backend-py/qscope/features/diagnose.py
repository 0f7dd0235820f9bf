"""Which features drove a response: by how strongly they fire, and by what they do to its probability.

Activation alone misleads: features of form and position fire on everything. The influence of a feature on a response
Y is z_f * (d log p(Y) / d h . d_f), its first-order share in log p(Y), in the manner of GradSAE (arXiv 2505.08080,
which takes the gradient of the probability and the positive part). One backward pass gives the gradients of all
layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qscope.models import LoadedModel
from qscope.models.hooks import ResidualEdits
from qscope.sae.topk import TopKSae

#: Tokens remembered per feature as examples.
_EXAMPLES = 5
#: Numbers of decoder rows looked up at a time: a row for every code is k times the residual stream.
ROWS_AT_ONCE = 1 << 24


@dataclass
class LayerSums:
    """Sums of one layer over the ``tokens`` that counted; ``not_finite`` others did not."""

    activation_F: Tensor
    fired_F: Tensor
    influence_F: Tensor
    tokens: int = 0
    not_finite: int = 0
    examples: dict[int, list[tuple[float, int]]] = field(default_factory=dict)


def new_sums(saes: Mapping[int, TopKSae]) -> dict[int, LayerSums]:
    """Empty sums by layer; float64 on the CPU."""
    return {
        layer: LayerSums(*(torch.zeros(sae.d_sae, dtype=torch.float64) for _ in range(3)))
        for layer, sae in saes.items()
    }


def residuals_and_gradients(
    loaded: LoadedModel, layers: Sequence[int], ids_T: Tensor, prompt_length: int
) -> tuple[dict[int, Tensor], dict[int, Tensor], float]:
    """The residual stream at the tokens a response is predicted from, and the gradient of its log-probability there.

    Args:
        loaded: the model; its weights get no gradient.
        layers: decoder blocks.
        ids_T: prompt and response.
        prompt_length: tokens of the prompt; at least one.

    Returns:
        ``{layer: resid_ND}``, ``{layer: gradient_ND}`` with N the tokens of the response, float32, and log p(response).
    """
    assert 0 < prompt_length < len(ids_T), "a response follows a prompt"
    resid, probes = {}, {}

    def at(layer: int) -> object:
        def probe(resid_BTD: Tensor, tokens: object) -> Tensor:
            resid[layer] = resid_BTD.detach()
            # A zero that is added to the stream: its gradient is the stream's own, and what was there stays a leaf.
            probes[layer] = torch.zeros_like(resid_BTD, requires_grad=True)
            return resid_BTD + probes[layer]

        return probe

    read = slice(prompt_length - 1, len(ids_T) - 1)
    with torch.enable_grad(), ResidualEdits(loaded, {layer: at(layer) for layer in layers}):
        ids_BT = ids_T[None].to(loaded.device)
        logits_TV = loaded.model(input_ids=ids_BT, use_cache=False).logits[0, read].float()
        logprob = logits_TV.log_softmax(-1).gather(1, ids_BT[0, prompt_length:, None]).sum()
        gradients = torch.autograd.grad(logprob, [probes[layer] for layer in layers])
    return (
        {layer: resid[layer][0, read].float() for layer in layers},
        {layer: gradient[0, read].float() for layer, gradient in zip(layers, gradients, strict=True)},
        logprob.item(),
    )


def finite_tokens(resid: Mapping[int, Tensor], gradients: Mapping[int, Tensor]) -> Tensor:
    """Which tokens are finite in the residual stream and in its gradient at every layer, ``[N]`` of bool.

    Args:
        resid: by layer, ``[N, D]``.
        gradients: by layer, ``[N, D]``.
    """
    return torch.stack([part_ND.isfinite().all(1) for part_ND in (*resid.values(), *gradients.values())]).all(0)


@torch.no_grad()
def add_case(sums: LayerSums, sae: TopKSae, resid_ND: Tensor, gradient_ND: Tensor, ids_N: Sequence[int]) -> None:
    """Adds responses at one layer; a token that is not finite there counts nowhere, and is counted as such.

    Args:
        sums: of the layer.
        sae: of the layer.
        resid_ND: residual stream at the tokens read.
        gradient_ND: gradient of the response's log-probability there.
        ids_N: these tokens.
    """
    finite_N = finite_tokens({0: resid_ND}, {0: gradient_ND})
    if not finite_N.all():
        # One of them would make every sum it enters undefined, and what is undefined sorts first.
        sums.not_finite += int((~finite_N).sum())
        resid_ND, gradient_ND = resid_ND[finite_N], gradient_ND[finite_N]
        ids_N = [token for token, finite in zip(ids_N, finite_N.tolist(), strict=True) if finite]
    at_once = max(1, ROWS_AT_ONCE // (sae.k * sae.d_in))
    for start in range(0, len(ids_N), at_once):
        part = slice(start, start + at_once)
        _add(sums, sae, resid_ND[part], gradient_ND[part], ids_N[part])


def _add(sums: LayerSums, sae: TopKSae, resid_ND: Tensor, gradient_ND: Tensor, ids_N: Sequence[int]) -> None:
    values_NK, indices_NK = sae.encode(resid_ND.to(sae.dtype))
    # d_f . gradient for the kept features only: the others have z = 0 and no influence.
    slopes_NK = torch.einsum("nkd,nd->nk", sae.W_dec_FD[indices_NK].float(), gradient_ND)
    influence_NK = (values_NK.float() * slopes_NK).cpu().double()
    values_NK, indices_NK = values_NK.cpu().double(), indices_NK.cpu()
    flat = indices_NK.flatten()
    sums.activation_F.index_add_(0, flat, values_NK.flatten())
    sums.fired_F.index_add_(0, flat, (values_NK > 0).double().flatten())
    sums.influence_F.index_add_(0, flat, influence_NK.flatten())
    for row, token in enumerate(ids_N):
        for feature, value in zip(indices_NK[row].tolist(), influence_NK[row].tolist(), strict=True):
            if value > 0:
                known = sums.examples.setdefault(feature, [])
                known.append((value, token))
                if len(known) > 4 * _EXAMPLES:
                    known[:] = sorted(known, reverse=True)[:_EXAMPLES]
    sums.tokens += len(ids_N)


def examples(sums: LayerSums, feature: int) -> list[int]:
    """Distinct tokens at which a feature's influence was largest."""
    found = [token for _, token in sorted(sums.examples.get(feature, []), reverse=True)]
    return list(dict.fromkeys(found))[:_EXAMPLES]


def ranks(score_F: Tensor) -> Tensor:
    """Place of each feature from 1, largest score first; equal scores by lowest id."""
    order_F = score_F.argsort(descending=True, stable=True)
    ranks_F = torch.empty_like(order_F)
    ranks_F[order_F] = torch.arange(1, len(order_F) + 1)
    return ranks_F
