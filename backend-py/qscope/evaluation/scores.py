"""Scores of a panel of models, item by item, and what they say about benchmarks beside the footprints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qscope.data.items import Benchmark
from qscope.evaluation.panel import (
    bootstrap_interval,
    pairs_among,
    partial,
    pearson,
    ranks_models,
    redundancy,
    spearman,
    tau_b,
)
from qscope.evaluation.redundancy import r_hat
from qscope.evaluation.score_rows import bad_scores, score_rows
from qscope.evaluation.stability import matched_items, mean_known
from qscope.evaluation.suite import BenchmarkMeasure, Overlaps
from qscope.features.footprints import Footprints

RANDOM_SUBSETS = 200
_MATCHED_SUBSETS = 10
#: Models below which a correlation with a third benchmark held fixed has no degree of freedom left.
MIN_MODELS_PARTIAL = 4


@dataclass(frozen=True)
class Panel:
    """Scores of models.

    Attributes:
        models: their names, sorted.
        scores: by benchmark, models x items in the benchmark's order.
        unknown: rows of benchmarks that are none of ours, by name.
        unmatched: rows of items that are none of ours: left out, or not there.
    """

    models: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    unknown: Mapping[str, int] = field(default_factory=dict)
    unmatched: int = 0

    def accuracy(self, name: str) -> np.ndarray:
        """Mean score of each model on a benchmark."""
        return self.scores[name].mean(1)


def read_panel(source: str, benchmarks: Sequence[Benchmark], *, metrics: Sequence[str] = (), at: str = "") -> Panel:
    """Reads the scores of models, item by item.

    Args:
        source: see :func:`qscope.evaluation.score_rows.score_rows`; ``item`` is the row's number in the benchmark's
            source, from 0.
        benchmarks: the benchmarks, found by name or by task; rows of others, and of items that were left out, are
            counted and not used.
        metrics: of samples of lm-eval, see there.
        at: experiment field of the panel, for errors.

    Raises:
        UserError: a bad row (SCORES_BAD), a score given twice (SCORES_TWICE), or a model that lacks some
            (SCORES_MISSING).
    """
    places = {one.name: {item.number: index for index, item in enumerate(one.items)} for one in benchmarks}
    names = {one.task: one.name for one in benchmarks if one.task} | {name: name for name in places}
    found: dict[str, dict[str, np.ndarray]] = {}
    unknown: Counter[str] = Counter()
    unmatched = 0
    for row in score_rows(source, metrics, at=at):
        name = names.get(row.benchmark)
        if name is None:
            unknown[row.benchmark] += 1
            continue
        index = places[name].get(row.number)
        if index is None:
            unmatched += 1
            continue
        mine = found.setdefault(row.model, {}).setdefault(name, np.full(len(places[name]), math.nan))
        if not math.isnan(mine[index]):
            raise bad_scores(
                f"{row.place}: {row.model} on item {row.number} of {name} stands here twice.", "SCORES_TWICE", at
            )
        mine[index] = row.score
    models = tuple(sorted(found))
    for model in models:
        for one in benchmarks:
            mine = found[model].get(one.name, np.full(len(one.items), math.nan))
            missing = np.flatnonzero(np.isnan(mine))
            if len(missing):
                raise bad_scores(
                    f"{source}: {model} has no score on item {one.items[missing[0]].number} of {one.name} "
                    f"({len(missing):,} are missing).",
                    "SCORES_MISSING",
                    at,
                )
    if len(models) < 2:
        others = f" Benchmarks there that are none of ours: {', '.join(list(unknown)[:12])}." if unknown else ""
        raise bad_scores(f"{source}: a panel takes two models, here are {len(models)}.{others}", "SCORES_BAD", at)
    scores = {one.name: np.stack([found[model][one.name] for model in models]) for one in benchmarks}
    return Panel(models, scores, dict(unknown), unmatched)


@dataclass(frozen=True)
class Correlation:
    """A correlation over benchmarks or pairs of them, or a difference of two.

    Attributes:
        value: NaN with fewer than three.
        low, high: 95 % bootstrap interval over benchmarks; NaN where there are too few for one.
        n: benchmarks or pairs.
        benchmarks: how many of them are behind it.
    """

    value: float
    low: float
    high: float
    n: int
    benchmarks: int


@dataclass(frozen=True)
class SubsetRanking:
    """How well a subset ranks the panel: tau-b with the ranking by all items.

    Attributes:
        name, share, items: which.
        chosen: of the greedy subset.
        random_mean, random_sd: of random subsets of that size.
    """

    name: str
    share: float
    items: int
    chosen: float
    random_mean: float
    random_sd: float


@dataclass(frozen=True)
class PanelMeasures:
    """What a panel says beside the footprints.

    Attributes:
        models: how many.
        draws: random orders behind every R.
        r: R of each benchmark, and its standard error over draws; NaN where every model has the same accuracy.
        r_spearman: Spearman's correlation of R with R-hat over benchmarks.
        r_spearman_matched: the same at equal numbers of items, R and R-hat of the same random subsets.
        r_spearman_items: of R with the number of items, which R-hat grows with: what size alone gives.
        direct: ``[i, j]``, Pearson's correlation of accuracies over models.
        tide: benchmark held fixed in ``partial``; empty for none.
        partial: the same with the tide removed; NaN in its own row and column, and with fewer than four models.
        overlap_direct, overlap_partial: Pearson and Spearman of overlap_min with those, over the same pairs: those
            without the tide, of which all is known.
        overlap_gain: ``overlap_partial`` less ``overlap_direct``.
        subsets: the greedy subsets against random ones.
    """

    models: int
    draws: int
    r: Mapping[str, tuple[float, float]]
    r_spearman: Correlation
    r_spearman_matched: Correlation
    r_spearman_items: Correlation
    direct: np.ndarray
    tide: str
    partial: np.ndarray
    overlap_direct: tuple[Correlation, Correlation]
    overlap_partial: tuple[Correlation, Correlation] | None
    overlap_gain: tuple[Correlation, Correlation] | None
    subsets: tuple[SubsetRanking, ...]


def panel_measures(
    panel: Panel,
    suite: Mapping[str, Footprints],
    measures: Sequence[BenchmarkMeasure],
    shared: Overlaps,
    *,
    tide: str,
    draws: int,
    seed: int,
) -> PanelMeasures:
    """All of it.

    Args:
        panel: the scores.
        suite: footprints of the benchmarks.
        measures: of the same, in order.
        shared: their overlaps.
        tide: benchmark whose accuracy stands for general ability; empty leaves the partial correlations out.
        draws: random orders for R.
        seed: of the draws.
    """
    names = [one.name for one in measures]
    r = {name: redundancy(panel.scores[name], draws=draws, seed=seed) for name in names}
    count = len(names)
    accuracies = [panel.accuracy(name) for name in names]
    direct = np.array([[pearson(one, other) for other in accuracies] for one in accuracies])
    removed = np.full((count, count), math.nan)
    fixed = names.index(tide) if tide else -1
    for i in range(count):
        for j in range(count):
            if tide and len(panel.models) >= MIN_MODELS_PARTIAL and fixed not in (i, j):
                removed[i, j] = 1.0 if i == j else partial(direct[i, j], direct[i, fixed], direct[j, fixed])
    known = np.isfinite(shared.smaller) & np.isfinite(direct) & ~np.eye(count, dtype=bool)
    if tide:
        # One set of pairs for both, so that they differ in nothing but the tide.
        known[fixed] = known[:, fixed] = False
    with_partial = bool(np.isfinite(removed).any())
    if with_partial:
        known &= np.isfinite(removed)
    r_B, r_hat_B = np.array([r[name][0] for name in names]), np.array([one.r_hat for one in measures])
    return PanelMeasures(
        len(panel.models),
        draws,
        r,
        over_benchmarks(r_B, r_hat_B, seed),
        over_benchmarks(*_matched(panel, suite, draws, seed), seed),
        over_benchmarks(r_B, np.array([one.items for one in measures], dtype=np.float64), seed),
        direct,
        tide,
        removed,
        *_over_pairs(shared.smaller, direct, removed if with_partial else None, known, seed),
        subset_rankings(panel, measures, seed=seed),
    )


def _matched(panel: Panel, suite: Mapping[str, Footprints], draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """R and R-hat of every benchmark at matched size, means over the same random subsets of its items."""
    chosen = matched_items(suite, draws=_MATCHED_SUBSETS, seed=seed)
    orders = max(2, draws // _MATCHED_SUBSETS)
    r = [
        mean_known([redundancy(panel.scores[name][:, some], draws=orders, seed=seed)[0] for some in chosen[name]])
        for name in suite
    ]
    r_hats = [mean_known([r_hat(part.take(some)) for some in chosen[name]]) for name, part in suite.items()]
    return np.array(r), np.array(r_hats)


def subset_rankings(panel: Panel, measures: Sequence[BenchmarkMeasure], *, seed: int) -> tuple[SubsetRanking, ...]:
    """tau-b of every subset's ranking of the panel with that of all items, beside 200 random subsets of its size."""
    return tuple(
        _subset_ranking(panel.scores[one.name], one.name, part, seed) for one in measures for part in one.subsets
    )


def _subset_ranking(scores_MN: np.ndarray, name: str, part: Any, seed: int) -> SubsetRanking:
    if not ranks_models(scores_MN):
        return SubsetRanking(name, part.share, part.items, math.nan, math.nan, math.nan)
    whole_M = np.round(scores_MN.mean(1), 9)
    random = np.random.default_rng(seed)
    drawn = [random.permutation(scores_MN.shape[1])[: part.items] for _ in range(RANDOM_SUBSETS)]
    subsets = np.stack([scores_MN[:, list(chosen)].mean(1) for chosen in (part.chosen, *drawn)])
    tau = tau_b(whole_M, np.round(subsets, 9))
    return SubsetRanking(name, part.share, part.items, float(tau[0]), float(tau[1:].mean()), float(tau[1:].std(ddof=1)))


def over_benchmarks(first_B: np.ndarray, second_B: np.ndarray, seed: int) -> Correlation:
    """Spearman's correlation over the benchmarks of which both values are known."""
    known = np.isfinite(first_B) & np.isfinite(second_B)
    one, other = first_B[known], second_B[known]
    count = len(one)
    if count < 3:
        return Correlation(math.nan, math.nan, math.nan, count, count)
    interval = bootstrap_interval(lambda drawn: spearman(one[drawn], other[drawn]), count, seed=seed)
    return Correlation(spearman(one, other), *interval, count, count)


def _over_pairs(
    overlap_BB: np.ndarray, direct_BB: np.ndarray, partial_BB: np.ndarray | None, known_BB: np.ndarray, seed: int
) -> tuple[Any, Any, Any]:
    """Pearson and Spearman of the overlap with either correlation of accuracies, and by how much they differ."""
    units = np.flatnonzero(known_BB.any(1))

    def of(statistic: Any, value: Any) -> Correlation:
        def measured(drawn: np.ndarray) -> float:
            one, other = pairs_among(units[drawn])
            kept = known_BB[one, other]
            return value(statistic, one[kept], other[kept]) if kept.sum() >= 3 else math.nan

        every = np.arange(len(units))
        n = int(known_BB.sum()) // 2
        return Correlation(measured(every), *bootstrap_interval(measured, len(units), seed=seed), n, len(units))

    def with_(values_BB: np.ndarray) -> Any:
        return lambda statistic, one, other: statistic(overlap_BB[one, other], values_BB[one, other])

    def both(value: Any) -> tuple[Correlation, Correlation]:
        return of(pearson, value), of(spearman, value)

    if partial_BB is None:
        return both(with_(direct_BB)), None, None
    direct, removed = with_(direct_BB), with_(partial_BB)
    return both(direct), both(removed), both(lambda *given: removed(*given) - direct(*given))
