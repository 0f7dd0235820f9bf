"""Two sizes of one recipe: what two CPU cores train in an hour or two, and what a GPU trains in minutes."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import Qwen3Config

CONTEXT = 512
# Shares of the training tokens. Korean has the least text and is seen most often; the generated streams are a sixth.
MIXTURE = {"en": 0.155, "zh": 0.14, "ru": 0.145, "fr": 0.14, "de": 0.14, "ko": 0.11, "chat": 0.10, "arithmetic": 0.07}
# While the rate decays, more of what later work asks of the model: to answer on topic, and to reckon.
DECAY_MIXTURE = {
    "en": 0.115,
    "zh": 0.10,
    "ru": 0.105,
    "fr": 0.10,
    "de": 0.10,
    "ko": 0.08,
    "chat": 0.22,
    "arithmetic": 0.18,
}


@dataclass(frozen=True)
class Preset:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    rows: int  # sequences of CONTEXT tokens a step
    muon_lr: float
    adam_lr: float
    tokens: int | None  # the budget, where it is not given in hours
    generated: int


PRESETS = {
    "cpu": Preset(128, 6, 4, 2, 384, rows=4, muon_lr=4e-3, adam_lr=3e-3, tokens=None, generated=1),
    "gpu": Preset(256, 8, 8, 4, 768, rows=64, muon_lr=3e-3, adam_lr=3e-3, tokens=320_000_000, generated=6),
}


def config_of(preset: Preset, vocabulary: int, eos: int, pad: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=preset.hidden,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.kv_heads,
        head_dim=32,
        intermediate_size=preset.intermediate,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        attention_bias=False,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        dtype="float32",
    )
