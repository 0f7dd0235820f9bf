"""A tiny model that was taught to end half of its answers and to loop in the other half, and the direction of looping.

Answers are six letters and an end token, or one letter again and again. Which of the two it will be, the model
decides as it writes; what tells the two apart in its residual stream makes it loop when it is added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3Config

from qscope.models import LoadedModel, capture_residuals
from qscope.sae.topk import TopKSae

LAYER, LETTERS, END, LENGTH = 0, range(20, 60), 2, 72
D = 32


def rows(count: int, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """ids_BT, what counts in them, and which loop; each begins with a prompt of two letters."""
    letters_BT = torch.randint(LETTERS.start, LETTERS.stop, (count, LENGTH + 2), generator=noise)
    loops_B = torch.arange(count) % 2 == 0
    place_T = torch.arange(LENGTH + 2)
    ids_BT = torch.where(loops_B[:, None] & (place_T >= 2), letters_BT[:, 2:3], letters_BT)
    ends_BT = ~loops_B[:, None] & (place_T == 8)
    ids_BT = torch.where(ends_BT, END, ids_BT)
    return ids_BT, loops_B[:, None] | (place_T <= 8), loops_B


def make_looper(tokenizer: Any, folder: Path, *, steps: int = 120) -> Path:
    """Trains the model and saves it."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = Qwen3Config(
            vocab_size=300,
            hidden_size=D,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            eos_token_id=END,
            pad_token_id=0,
            bos_token_id=None,
        )
        model = AutoModelForCausalLM.from_config(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
        noise = torch.Generator().manual_seed(1)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 8e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
            ids_BT, counts_BT, _ = rows(16, noise)
            labels_BT = ids_BT.masked_fill(~counts_BT, -100)
            labels_BT[:, :2] = -100
            loss = model(input_ids=ids_BT, labels=labels_BT).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def looping_sae(loaded: LoadedModel) -> TopKSae:
    """An SAE whose feature 0 is what loops have and ended answers have not; feature 1 points elsewhere."""
    ids_BT, _, loops_B = rows(64, torch.Generator().manual_seed(2))
    resid_BTD = capture_residuals(loaded, [LAYER], ids_BT[:, :9])[LAYER][:, 5:8].float()
    direction_D = resid_BTD[loops_B].mean((0, 1)) - resid_BTD[~loops_B].mean((0, 1))
    other_D = torch.randn(D, generator=torch.Generator().manual_seed(4))
    W_FD = torch.stack([direction_D / direction_D.norm(), other_D / other_D.norm()])
    return TopKSae(W_FD, torch.zeros(2), W_FD.clone(), torch.zeros(D), k=1, layer=LAYER)
