"""Which implementations a loaded model computes with: they change its speed by a factor and its last bits."""

from __future__ import annotations

import importlib.util

from qscope.models.loading import LoadedModel


def implementation_facts(loaded: LoadedModel) -> list[str]:
    """Attention, delta-net kernels and expert implementation in use, for people; nothing that the model lacks."""
    config = loaded.model.config
    text = config.get_text_config()
    facts = [f"attention: {getattr(config, '_attn_implementation', None) or 'eager'}"]
    kinds = getattr(text, "layer_types", None) or []
    if "linear_attention" in kinds:
        fast = [name for name in ("fla", "causal_conv1d") if importlib.util.find_spec(name)]
        facts.append(f"delta-net: {' and '.join(fast) if fast else 'torch reference (slow on a GPU)'}")
    if getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None):
        facts.append(f"experts: {getattr(config, '_experts_implementation', None) or 'eager'}")
    return facts
