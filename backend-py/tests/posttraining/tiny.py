"""What the tests of post-training share with the processes they start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Qwen3Config

from qscope.models.architectures import Decoder, find_decoder
from qscope.models.taps import tap_residuals
from qscope.posttraining.feature_rows import FeatureRows
from qscope.posttraining.sae_loss import HeldFeatures

LAYERS, D, VOCABULARY = 3, 16, 60


def make_model() -> tuple[nn.Module, Decoder]:
    """The same random Qwen3 every time, in float64, in training mode."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=D,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = AutoModelForCausalLM.from_config(config).double().train()
    return model, find_decoder(model, LAYERS)


@dataclass(frozen=True)
class Rows:
    """Rows padded on the right; ``language_B`` is 0 for the language that is held down, 1 and 2 for others."""

    ids_BT: Tensor
    mask_BT: Tensor
    answer_BT: Tensor
    language_B: Tensor

    def take(self, index: list[int]) -> Rows:
        """Some rows, as wide as the longest of them."""
        width = int(self.mask_BT[index].sum(1).max())
        parts = (self.ids_BT, self.mask_BT, self.answer_BT)
        return Rows(*(part[index, :width] for part in parts), self.language_B[index])


def make_rows() -> Rows:
    """Eight rows of different lengths: prompts of two to four tokens, answers of one to twelve."""
    noise = torch.Generator().manual_seed(3)
    prompt_B = torch.tensor([2, 3, 4, 2, 3, 4, 2, 3])
    length_B = prompt_B + torch.tensor([1, 12, 3, 7, 2, 9, 4, 1])
    place_T = torch.arange(int(length_B.max()))
    mask_BT = place_T < length_B[:, None]
    ids_BT = torch.randint(1, VOCABULARY, mask_BT.shape, generator=noise) * mask_BT
    return Rows(ids_BT, mask_BT, mask_BT & (place_T >= prompt_B[:, None]), torch.tensor([1, 0, 2, 1, 1, 2, 0, 2]))


def held_at(layer: int, features: int = 3, targets: tuple[int, ...] = (0,), languages: int = 3) -> HeldFeatures:
    """Random features of the tiny model, as many for each target, with thresholds that half the tokens exceed."""
    noise = torch.Generator().manual_seed(100 + layer)
    count = features * len(targets)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=noise, dtype=torch.float64)

    rows = FeatureRows(layer, tuple(range(count)), 20 * normal(count, D), 0.1 * normal(count))
    target_M = torch.tensor(targets).repeat_interleave(features)
    holds_GM = torch.arange(languages)[:, None] != target_M
    return HeldFeatures(rows, target_M, 0.3 * normal(languages, count), holds_GM)


def residuals(model: nn.Module, decoder: Decoder, rows: Rows, layers: list[int]) -> dict[int, Tensor]:
    """The residual stream of a forward pass, with its graph."""
    with tap_residuals(decoder, layers) as resids:
        model(input_ids=rows.ids_BT, attention_mask=rows.mask_BT.long(), use_cache=False)
    return resids
