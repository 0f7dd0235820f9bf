"""What a change costs: perplexity and KL on neutral text, and whether the generated text ends in a loop."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from qscope.data import TokenStream
from qscope.errors import Stopped
from qscope.models import LoadedModel
from qscope.models.hooks import ResidualEdits
from qscope.models.prompts import prompt_of_ids
from qscope.steering.batch import SteeredBatch
from qscope.steering.resolve import ResolvedSpec
from qscope.steering.saes import Saes
from qscope.text.loops import find_loop

#: Logits held at once, in values.
_LOGITS_AT_ONCE = 1 << 26
#: What counts as a text that does not end: whole repetitions at its end, and their tokens together.
LOOP_REPETITIONS, LOOP_TOKENS = 3, 24


@dataclass(frozen=True)
class NeutralCost:
    """Cost on text that has nothing to do with the change.

    Attributes:
        tokens: predicted tokens.
        loss: nats per token with the change.
        base_loss: without it.
        kl: mean KL(unsteered || steered) per token, nats.
        changed_positions: tokens changed in the whole text, all layers; 0 where a change that selects or reacts to
            something found nothing, and cost nothing for that reason alone.
    """

    tokens: int
    loss: float
    base_loss: float
    kl: float
    changed_positions: int

    @property
    def perplexity_ratio(self) -> float:
        """Perplexity with the change over perplexity without."""
        return math.exp(min(700.0, self.loss - self.base_loss))


@torch.no_grad()
def neutral_costs(
    loaded: LoadedModel,
    specs: Sequence[ResolvedSpec],
    stream: TokenStream,
    tokens: int,
    saes: Saes,
    *,
    on_progress: Callable[[int, int], None] = lambda read, wanted: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[NeutralCost]:
    """Cost of each spec on the same text.

    The first half of each sequence counts as prompt, the second as generated, and only the second is measured: a spec
    pays for what it does to the text it would be writing, whichever of the two it edits.

    Args:
        loaded: the model.
        specs: what is measured.
        stream: neutral text; full sequences, as packing makes them.
        tokens: how many to measure at least.
        saes: the SAEs.
        on_progress: called with the tokens measured so far and those wanted, each times the specs.
        should_stop: asked before every pass.

    Raises:
        Stopped: when asked to stop.
    """
    sums_S3 = torch.zeros(len(specs), 2, dtype=torch.float64)
    changed_S = [0] * len(specs)
    base_sum, count = 0.0, 0
    rows = max(1, _LOGITS_AT_ONCE // (loaded.facts.vocab_size * stream.context))
    while count < tokens:
        batch = stream.next_batch(min(rows, max(1, math.ceil((tokens - count) / max(1, stream.context // 2)))))
        if batch is None:
            break
        ids_BT, mask_BT = batch.input_ids_BT, batch.attention_mask_BT
        half = ids_BT.shape[1] // 2
        if half < 1:
            continue
        target_BT = ids_BT[:, half:].to(loaded.device)
        measured_BT = mask_BT[:, half:].to(loaded.device)
        clean_BTV = _log_probs(loaded, ids_BT, mask_BT, half)
        base_sum -= _picked(clean_BTV, target_BT)[measured_BT].double().sum().item()
        measured = int(measured_BT.sum())
        count += measured
        # Flagged like any prompt: `where` may leave special tokens out.
        prompts = [prompt_of_ids(loaded.tokenizer, ids_T[:half].tolist()) for ids_T in ids_BT]
        for index, spec in enumerate(specs):
            if should_stop():
                raise Stopped
            steered = SteeredBatch(loaded, prompts, [spec] * len(prompts), saes)
            with ResidualEdits(loaded, steered.edits()):
                new_BTV = _log_probs(loaded, ids_BT, mask_BT, half)
            sums_S3[index, 0] -= _picked(new_BTV, target_BT)[measured_BT].double().sum().cpu()
            kl_BT = (clean_BTV.exp() * (clean_BTV - new_BTV)).sum(-1)
            sums_S3[index, 1] += kl_BT[measured_BT].double().sum().cpu()
            changed_S[index] += sum(proof.changed for proof in steered.row_proofs())
            on_progress(len(specs) * (count - measured) + (index + 1) * measured, len(specs) * max(tokens, count))
    assert count > 0, "the neutral text is empty"
    return [
        NeutralCost(count, loss / count, base_sum / count, kl / count, changed)
        for (loss, kl), changed in zip(sums_S3.tolist(), changed_S, strict=True)
    ]


def _log_probs(loaded: LoadedModel, ids_BT: torch.Tensor, mask_BT: torch.Tensor, half: int) -> torch.Tensor:
    """Log-probabilities of the tokens from `half` on, float32."""
    logits_BTV = loaded.model(
        input_ids=ids_BT.to(loaded.device), attention_mask=mask_BT.long().to(loaded.device), use_cache=False
    ).logits
    return logits_BTV[:, half - 1 : -1].float().log_softmax(-1)


def _picked(log_probs_BTV: torch.Tensor, target_BT: torch.Tensor) -> torch.Tensor:
    return log_probs_BTV.gather(-1, target_BT[..., None])[..., 0]


def ends_in_loop(tokens: Sequence[int]) -> bool:
    """Whether the text ends in three or more whole repetitions of a span, 24 tokens or more in all.

    Looser than the loops that features are searched in (:func:`qscope.text.loops.find_loop`: 64 tokens), as texts
    written to compare strengths are short; a table or a list of that length counts too.
    """
    return find_loop(np.asarray(tokens), LOOP_REPETITIONS, min_tokens=LOOP_TOKENS) is not None


def shares(values: Sequence[str]) -> dict[str, float]:
    """Share of each value, most frequent first."""
    return {value: count / len(values) for value, count in Counter(values).most_common()}
