"""Labels without a language model to write them: the tokens a feature fires on, and those its direction promotes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from qscope.features.intervals import wilson
from qscope.models import LoadedModel
from qscope.v1.features_pb2 import FeatureContext


def plain(token: str) -> str:
    """A token as labels write it: without the blanks around it, in lower case; what is only blanks is escaped."""
    text = token.strip().casefold()
    return text if text or not token else token.encode("unicode_escape").decode().replace(" ", "␣")


def firing_tokens(
    contexts: Sequence[FeatureContext], silent: Sequence[FeatureContext], count: int, *, share: float = 0.05
) -> list[str]:
    """The few tokens whose presence tells a feature's contexts from windows on which it is silent.

    Greedy: the token next chosen is one the feature fires on, and the one that adds most to the balanced accuracy of
    "holds one of the tokens". It ends at ``count``, or when no token adds.

    Args:
        contexts: where the feature fires.
        silent: where it does not.
        count: tokens at most.
        share: what a token must add, its share of the contexts less its share of the silent windows, so that labels
            are no list of accidents; the first token always counts.
    """
    fires = [
        {plain(token) for token, value in zip(one.tokens, one.activations, strict=True) if value > 0}
        for one in contexts
    ]
    holds = [tokens_of(one) for one in contexts]
    quiet = [tokens_of(one) for one in silent]
    weight: dict[str, float] = {}
    for one in contexts:
        for token, value in zip(one.tokens, one.activations, strict=True):
            weight[plain(token)] = weight.get(plain(token), 0.0) + value
    # Empty stands for the beginning of a character that later tokens end; U+FFFD for one that never ends.
    candidates = sorted({token for tokens in fires for token in tokens if token and "\ufffd" not in token})
    chosen: list[str] = []
    left, wrong = set(range(len(holds))), set()
    while len(chosen) < count and left:
        best = None
        for token in candidates:
            gained = {index for index in left if token in holds[index]}
            lost = {index for index in range(len(quiet)) if index not in wrong and token in quiet[index]}
            worth = len(gained) / len(holds) - (len(lost) / len(quiet) if quiet else 0.0)
            key = (worth, weight.get(token, 0.0), token)
            if gained and (best is None or key > best[0]):
                best = (key, token, gained, lost)
        if best is None or (chosen and best[0][0] < share):
            break
        _, token, gained, lost = best
        chosen.append(token)
        candidates.remove(token)
        left -= gained
        wrong |= lost
    return chosen


def tokens_of(context: FeatureContext) -> set[str]:
    """The tokens of a window as labels write them."""
    return {plain(token) for token in context.tokens}


@torch.no_grad()
def promoted_tokens(loaded: LoadedModel, direction_MD: Tensor, count: int) -> list[list[str]]:
    """For each direction the tokens whose logits it raises most, read off the unembedding.

    The direction passes the final norm as if it were a residual, which gives it the norm's gain, and then the LM head:
    what it says at the last layer; earlier ones can change it on the way (the logit lens).

    Args:
        loaded: the model.
        direction_MD: decoder rows.
        count: tokens of each.
    """
    head = loaded.model.get_output_embeddings()
    if head is None:
        return [[] for _ in direction_MD]
    weight = head.weight
    row_MD = direction_MD.to(weight.device, weight.dtype)
    row_MD = row_MD / row_MD.float().norm(dim=-1, keepdim=True).clamp_min(1e-30).to(row_MD.dtype)
    # A norm adds its epsilon to the mean square: a direction of length one could drown in it.
    normed_MD = loaded.decoder.final_norm(row_MD[None] * math.sqrt(row_MD.shape[-1]))[0]
    logits_MV = head(normed_MD).float()
    # Rows beyond the tokenizer's vocabulary pad the matrix.
    size = min(logits_MV.shape[1], len(loaded.tokenizer))
    best_MC = logits_MV[:, :size].topk(min(4 * count, size), dim=1).indices.cpu()
    found = []
    for ids in best_MC.tolist():
        texts = dict.fromkeys(plain(loaded.tokenizer.decode([token])) for token in ids)
        found.append([text for text in texts if text and "\ufffd" not in text][:count])
    return found


def offline_label(fires_on: Sequence[str], promotes: Sequence[str]) -> str:
    """One line of both lists."""
    parts = [f"fires on {', '.join(fires_on)}"] if fires_on else []
    parts += [f"promotes {', '.join(promotes)}"] if promotes else []
    return "; ".join(parts)


class Detection:
    """How well a label tells contexts from silent windows.

    Args:
        active: for each context whether the label was said to hold; None where no answer was understood.
        silent: the same for each silent window.

    Attributes:
        recall: share of contexts found; NaN without any.
        specificity: share of silent windows left alone.
        balanced_accuracy: their mean; 0.5 is what a label that says nothing reaches.
        low, high: its 95 % interval: Wilson's intervals of both shares, put together by Newcombe's MOVER.
        n_active, n_silent: answers that were understood.
        unanswered: those that were not.
    """

    def __init__(self, active: Iterable[bool | None], silent: Iterable[bool | None]) -> None:
        said, unsaid = list(active), list(silent)
        self.unanswered = sum(answer is None for answer in [*said, *unsaid])
        hits, rejections = [one for one in said if one is not None], [not one for one in unsaid if one is not None]
        self.n_active, self.n_silent = len(hits), len(rejections)
        hit, rejected = wilson(sum(hits), len(hits)), wilson(sum(rejections), len(rejections))
        self.recall, self.specificity = hit.value, rejected.value
        self.balanced_accuracy = (hit.value + rejected.value) / 2
        self.low = self.balanced_accuracy - math.hypot(hit.value - hit.low, rejected.value - rejected.low) / 2
        self.high = self.balanced_accuracy + math.hypot(hit.high - hit.value, rejected.high - rejected.value) / 2


def spread_over(contexts: Sequence[Any], count: int) -> list[Any]:
    """``count`` of a list in falling order, evenly over its length: also where a feature fires less."""
    if len(contexts) <= count:
        return list(contexts)
    return [contexts[round(index * (len(contexts) - 1) / max(1, count - 1))] for index in range(count)]
