"""Which features tell classes of tokens apart: ranked on one half of the documents, checked on the other.

For a class s with mean activation mu_s and the mean gamma_s of the other classes' means, features are ranked by
mu_s - gamma_s (with two classes the difference of means of Qwen-Scope, section 3; with languages the nu of SASFT), or
by the same difference of firing rates (Qwen-Scope, section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.features.auc import auc
from qscope.features.documents import Document, batches
from qscope.features.reading import Reader
from qscope.features.stats import ChosenStats, GroupStats
from qscope.models import LoadedModel
from qscope.sae.kernels import encode
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import (
    CONTRAST_SCORE_RATE_DIFFERENCE,
    CONTRAST_UNIT_DOCUMENT_MAX,
    CONTRAST_UNIT_TOKEN,
    ContrastScore,
    ContrastUnit,
    FeatureEntry,
)


@dataclass(frozen=True)
class Question:
    """What is asked of the classes.

    Attributes:
        classes: their names; a token's group is an index into them.
        targets: classes to find features for.
        against: classes a target is compared with; None means all others.
        score, unit: what the ranking ranks by.
        top: features reported per layer and target, at most.
        ambient_share: features firing on more than this share of the tokens of every class are left out.
    """

    classes: Sequence[str]
    targets: Sequence[int]
    score: ContrastScore
    unit: ContrastUnit
    top: int
    ambient_share: float
    against: Sequence[int] | None = None

    def others(self, target: int) -> list[int]:
        """The classes a target is compared with."""
        given = range(len(self.classes)) if self.against is None else self.against
        return [group for group in given if group != target]


@dataclass
class Found:
    """What a contrast found.

    Attributes:
        entries: by layer, target and falling score.
        targets: index of the target class of each entry.
        ambient: features left out as ambient, by layer.
        median_norms: by layer.
        tokens: tokens that counted, by class, ranking and held out together.
        documents: documents that counted, by class, of the ranking and held out.
        not_finite: tokens left out as their activations were not finite.
    """

    entries: list[FeatureEntry] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    ambient: dict[int, list[int]] = field(default_factory=dict)
    median_norms: dict[int, float] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    documents: tuple[list[int], list[int]] = ((), ())
    not_finite: int = 0


@torch.no_grad()
def find_features(
    loaded: LoadedModel,
    saes: dict[int, TopKSae],
    ranking: Sequence[Document],
    held_out: Sequence[Document],
    question: Question,
    *,
    batch_tokens: int,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Found | None:
    """Ranks every feature of every layer on some documents, and measures the best on others.

    Each document passes the model once, all layers together. The first pass keeps sums by class and feature
    (:class:`GroupStats`); the second keeps numbers per document (and class, where a document has several), of the
    chosen features only.

    Args:
        loaded: the model.
        saes: encoders by layer, on the model's device.
        ranking: documents the ranking sees, their tokens in the question's classes.
        held_out: the others.
        question: what is asked.
        batch_tokens: tokens of a forward pass, padding included.
        on_progress: called with the documents done.
        should_stop: asked between batches.

    Returns:
        What was found; None when ``should_stop`` said so.
    """
    reader = Reader(loaded, sorted(saes))
    groups, per_document = len(question.classes), question.unit != CONTRAST_UNIT_TOKEN
    sums = {
        layer: GroupStats(groups, sae.d_sae, loaded.device, documents=per_document)
        for layer, sae in sorted(saes.items())
    }
    done = 0
    for batch in batches(ranking, batch_tokens):
        if should_stop():
            return None
        reading = reader.read(batch)
        for layer, stats in sums.items():
            stats.add(*encode(saes[layer], reading.resid[layer]), reading.group_N, reading.row_N)
        done += len(batch.rows_B)
        on_progress(done)

    ranked = {layer: _rank(stats, question) for layer, stats in sums.items()}
    class_D = single_classes(held_out)
    checks = {
        layer: ChosenStats(len(held_out), groups, one.chosen_M, saes[layer].d_sae, class_D)
        for layer, one in ranked.items()
    }
    for batch in batches(held_out, batch_tokens):
        if should_stop():
            return None
        reading = reader.read(batch)
        document_N = batch.rows_B.to(loaded.device)[reading.row_N]
        for layer, stats in checks.items():
            codes = encode(saes[layer], reading.resid[layer])
            stats.add(*codes, reading.group_N, document_N)
        done += len(batch.rows_B)
        on_progress(done)

    _refuse_empty(sums, checks, question)
    norms = reader.median_norms()
    found = Found(median_norms=norms, not_finite=reader.not_finite)
    for layer, one in ranked.items():
        found.ambient[layer] = one.ambient
        for target, entry in _entries(layer, sums[layer], checks[layer], one, question, norms[layer]):
            found.targets.append(target)
            found.entries.append(entry)
    first = next(iter(sums))
    units_G = torch.bincount(checks[first].groups_U()[checks[first].tokens_U > 0], minlength=groups)
    tokens_G = torch.zeros(groups, dtype=torch.int64, device=loaded.device)
    tokens_G.scatter_add_(0, checks[first].groups_U(), checks[first].tokens_U)
    found.tokens = (sums[first].tokens_G + tokens_G).tolist()
    found.documents = (sums[first].documents_G.tolist(), units_G.tolist())
    return found


def single_classes(documents: Sequence[Document]) -> Tensor | None:
    """The class of each document's tokens that count, 0 where none does; None when a document has several."""
    class_D = torch.zeros(len(documents), dtype=torch.int64)
    for number, document in enumerate(documents):
        counted_T = document.group_T[document.group_T >= 0]
        if len(counted_T) == 0:
            continue
        if counted_T.min() != counted_T.max():
            return None
        class_D[number] = int(counted_T[0])
    return class_D


def _refuse_empty(sums: dict[int, GroupStats], checks: dict[int, ChosenStats], question: Question) -> None:
    stats, check = next(iter(sums.values())), next(iter(checks.values()))
    for group in {*question.targets, *(other for target in question.targets for other in question.others(target))}:
        if not (int(stats.tokens_G[group]) and int(check.tokens_U[check.groups_U() == group].sum())):
            raise UserError(
                f"There is no token to go by in {question.classes[group]!r}, either for the ranking or for the check.",
                remedy="Give more documents, or relax the masks.",
                reason="TOO_FEW_DOCUMENTS",
            )


@dataclass(frozen=True)
class _Ranked:
    """The best features of one layer: ``by_target`` holds (target, place in chosen_M, score)."""

    chosen_M: Tensor
    by_target: list[tuple[int, int, float]]
    ambient: list[int]


def _rank(stats: GroupStats, question: Question) -> _Ranked:
    level_GF = _levels(stats, question)
    rate_GF = stats.hits_GF / stats.tokens_G.clamp_min(1)[:, None]
    # A feature of one class alone never counts as ambient, however many of the tokens that class has.
    ambient_F = rate_GF.amin(0) > question.ambient_share
    picked: list[tuple[int, int, float]] = []
    for target in question.targets:
        score_F = level_GF[target] - level_GF[question.others(target)].mean(0)
        score_F = score_F.masked_fill(ambient_F, 0.0)
        best_R = torch.sort(score_F, descending=True, stable=True).indices[: question.top]
        picked += [
            (target, feature, score)
            for feature, score in zip(best_R.tolist(), score_F[best_R].tolist(), strict=True)
            if score > 0
        ]
    chosen = sorted({feature for _, feature, _ in picked})
    slots = {feature: slot for slot, feature in enumerate(chosen)}
    return _Ranked(
        chosen_M=torch.tensor(chosen, dtype=torch.int64, device=score_F.device),
        by_target=[(target, slots[feature], score) for target, feature, score in picked],
        ambient=ambient_F.nonzero().squeeze(1).tolist(),
    )


def _levels(stats: GroupStats, question: Question) -> Tensor:
    """What is compared, ``[groups, d_sae]``."""
    is_rate = question.score == CONTRAST_SCORE_RATE_DIFFERENCE
    if question.unit == CONTRAST_UNIT_TOKEN:
        return (stats.hits_GF if is_rate else stats.sum_GF) / stats.tokens_G.clamp_min(1)[:, None]
    if is_rate:
        sums_GF = stats.document_hits_GF
    elif question.unit == CONTRAST_UNIT_DOCUMENT_MAX:
        sums_GF = stats.document_max_GF
    else:
        sums_GF = stats.document_mean_GF
    return sums_GF / stats.documents_G.clamp_min(1)[:, None]


def _entries(
    layer: int, sums: GroupStats, check: ChosenStats, ranked: _Ranked, question: Question, norm: float
) -> list[tuple[int, FeatureEntry]]:
    if not ranked.by_target:
        return []
    groups, group_U, present_U = len(question.classes), check.groups_U(), check.tokens_U > 0
    tokens_U = check.tokens_U.clamp_min(1)[:, None]

    def by_group(values_UM: Tensor) -> Tensor:
        sums_GM = torch.zeros(groups, values_UM.shape[1], dtype=torch.float64, device=values_UM.device)
        return sums_GM.index_add_(0, group_U, values_UM.double())

    tokens_G1 = by_group(check.tokens_U[:, None]).clamp_min(1)
    units_G1 = by_group(present_U[:, None]).clamp_min(1)
    mean_GM, rate_GM = by_group(check.sum_UM) / tokens_G1, by_group(check.hits_UM) / tokens_G1
    document_UM = check.max_UM if question.unit == CONTRAST_UNIT_DOCUMENT_MAX else check.sum_UM / tokens_U
    if question.unit == CONTRAST_UNIT_TOKEN:
        level_GM = rate_GM if question.score == CONTRAST_SCORE_RATE_DIFFERENCE else mean_GM
    elif question.score == CONTRAST_SCORE_RATE_DIFFERENCE:
        level_GM = by_group(check.hits_UM > 0) / units_G1
    else:
        level_GM = by_group(document_UM) / units_G1
    max_M = torch.maximum(sums.max_F[ranked.chosen_M].double(), check.max_UM.amax(0))

    areas: dict[int, tuple[list[float], list[float], list[float], int, int]] = {}
    for target in {target for target, _, _ in ranked.by_target}:
        others = torch.tensor(question.others(target), device=group_U.device)
        positive_U, negative_U = present_U & (group_U == target), present_U & torch.isin(group_U, others)
        used_U = positive_U | negative_U
        area, low, high = auc(document_UM[used_U], positive_U[used_U])
        areas[target] = (area.tolist(), low.tolist(), high.tolist(), int(positive_U.sum()), int(negative_U.sum()))

    entries = []
    for target, slot, score in ranked.by_target:
        others = question.others(target)
        area, low, high, n_positive, n_negative = areas[target]
        entry = FeatureEntry(
            layer=layer,
            feature=int(ranked.chosen_M[slot]),
            score=score,
            held_out_score=float(level_GM[target, slot] - level_GM[others, slot].mean()),
            mean_positive=float(mean_GM[target, slot]),
            mean_negative=float(mean_GM[others, slot].mean()),
            rate_positive=float(rate_GM[target, slot]),
            rate_negative=float(rate_GM[others, slot].mean()),
            max_activation=float(max_M[slot]),
            median_residual_norm=norm,
            held_out_auc=area[slot],
            auc_low=low[slot],
            auc_high=high[slot],
            n_positive=n_positive,
            n_negative=n_negative,
            label=question.classes[target],
            group=question.classes[target],
        )
        if len(question.classes) > 2:
            for group, name in enumerate(question.classes):
                entry.class_means[name] = float(mean_GM[group, slot])
        entries.append((target, entry))
    return entries


@torch.no_grad()
def mean_pre_activations(
    loaded: LoadedModel,
    saes: dict[int, TopKSae],
    documents: Sequence[Document],
    chosen: dict[int, list[int]],
    groups: int,
    *,
    batch_tokens: int,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, Tensor] | None:
    """Mean of ``w_f . x + b_f`` over the tokens of each class, for a few features: the alphas of SASFT.

    Args:
        loaded, saes, documents, batch_tokens, on_progress, should_stop: as in :func:`find_features`.
        chosen: features by layer.
        groups: classes.

    Returns:
        By layer ``[groups, chosen]`` in float64, on the CPU; None when ``should_stop`` said so.
    """
    layers = sorted(layer for layer, features in chosen.items() if features)
    reader = Reader(loaded, layers)
    rows = {layer: torch.tensor(chosen[layer], device=loaded.device) for layer in layers}
    sums = {
        layer: torch.zeros(groups, len(chosen[layer]), dtype=torch.float64, device=loaded.device) for layer in layers
    }
    tokens_G = torch.zeros(groups, dtype=torch.int64, device=loaded.device)
    done = 0
    for batch in batches(documents, batch_tokens) if layers else ():
        if should_stop():
            return None
        reading = reader.read(batch, count_norms=False)
        tokens_G += torch.bincount(reading.group_N, minlength=groups)
        for layer in layers:
            W_MD, b_M = saes[layer].W_enc_FD[rows[layer]], saes[layer].b_enc_F[rows[layer]]
            u_NM = torch.addmm(b_M, reading.resid[layer], W_MD.t())
            sums[layer].index_add_(0, reading.group_N, u_NM.double())
        done += len(batch.rows_B)
        on_progress(done)
    return {layer: (total_GM / tokens_G.clamp_min(1)[:, None]).cpu() for layer, total_GM in sums.items()}
