"""Neurons of the MLPs: where they are read, and what each adds to the logit of a token.

A neuron is an input of an MLP's last projection: sigma(W_in x), with a gate act(W_gate x) * W_up x. All at once they
add W_out a to the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from qscope.errors import UserError
from qscope.models.loading import LoadedModel

#: Where a block keeps the last projection of its MLP, with the families known to.
OUT_PROJECTIONS = (
    ("mlp.down_proj", "qwen2, qwen3, qwen3_5, llama, mistral, gemma"),
    ("mlp.c_proj", "gpt2"),
    ("mlp.dense_4h_to_h", "gpt_neox, falcon"),
    ("fc2", "opt"),
)
#: Told of a pass: the layer and its neurons_BTM.
NeuronReader = Callable[[int, Tensor], None]


def out_projections(loaded: LoadedModel) -> list[nn.Module]:
    """The last projection of each block's MLP.

    Raises:
        UserError: a block has none (NEURONS_UNKNOWN): in a mixture of experts each token goes through a few of many
            small MLPs, inside one fused step that shows nobody its neurons.
    """
    found = []
    for layer, block in enumerate(loaded.decoder.blocks):
        places = (_follow(block, path) for path, _ in OUT_PROJECTIONS)
        module = next((place for place in places if isinstance(getattr(place, "weight", None), Tensor)), None)
        if module is None:
            raise UserError(
                f"Block {layer} of {loaded.facts.architecture} has no MLP whose neurons can be read: in a mixture of "
                "experts they are inside one fused step.",
                remedy="Set utility.neurons to 0: features are measured all the same.",
                reason="NEURONS_UNKNOWN",
                field="model",
            )
        found.append(module)
    return found


def out_weight(module: nn.Module) -> Tensor:
    """W_out as [D, M]: what each of M neurons adds to the residual stream."""
    # GPT-2's Conv1D keeps its weight the other way round.
    return module.weight if isinstance(module, nn.Linear) else module.weight.T


@contextmanager
def reading_neurons(loaded: LoadedModel, read: NeuronReader) -> Iterator[None]:
    """Calls ``read`` with every block's neurons, in every forward pass inside the ``with`` block, one after the other:
    those of all blocks at once would be larger than the pass."""

    def hook_of(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            read(layer, inputs[0])

        return hook

    with ExitStack() as stack:
        for layer, module in enumerate(out_projections(loaded)):
            handle = module.register_forward_pre_hook(hook_of(layer))
            stack.callback(handle.remove)
        yield


def contributions(module: nn.Module, neurons_NM: Tensor, unembed_ND: Tensor) -> Tensor:
    """What each neuron adds to the logit of one token at each place: (W_u W_out) * a, [N, M] in float32.

    The final norm is left out, as in MUI (arXiv 2504.07440): direct contributions, not those through later blocks.

    Args:
        module: the MLP's last projection.
        neurons_NM: its inputs.
        unembed_ND: the row of the LM head of each place's token.
    """
    return (unembed_ND.to(module.weight.dtype) @ out_weight(module)).float() * neurons_NM.float()


def _follow(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name, None)
    return root
