"""The features that are wanted, and those of them that a data set misses (Qwen-Scope, eqs. 18 to 20)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from qscope.synthesis.fired import FiringCounts, key_of_feature
from qscope.v1.explain_pb2 import ExplanationSet
from qscope.v1.features_pb2 import FeatureContext, FeatureSet


@dataclass(frozen=True)
class Target:
    """One wanted feature.

    Attributes:
        layer, feature: which.
        label: what it stands for; empty where nobody knows.
        score: what it was chosen by: balanced accuracy of its label, score of a feature set; NaN without.
        contexts: excerpts in which it fires, the strongest first.
        promotes: tokens its direction makes more likely.
        relevance: how relevant its label is to the topic, between 0 and 1; NaN where nobody was asked.
    """

    layer: int
    feature: int
    label: str = ""
    score: float = math.nan
    contexts: tuple[FeatureContext, ...] = field(default=(), compare=False)
    promotes: tuple[str, ...] = ()
    relevance: float = math.nan

    @property
    def key(self) -> int:
        """See :func:`qscope.synthesis.fired.key_of_feature`."""
        return key_of_feature(self.layer, self.feature)

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.layer}/{self.feature}"


def named_targets(
    features: Sequence[str],
    feature_set: FeatureSet | None,
    explanations: ExplanationSet | None,
    *,
    min_score: float = 0.0,
    words: Sequence[str] = (),
) -> list[Target]:
    """Features named one by one, of a feature set and of explanations, each once, in falling order of their score.

    Args:
        features: as LAYER/FEATURE; they always stay.
        feature_set: found features.
        explanations: labels with their scores and contexts; they also label the others.
        min_score: lowest score of an explanation's label; features without a label or a score have none.
        words: a label must hold one of these, whatever the case; empty lets every label through.
    """
    found: dict[tuple[int, int], Target] = {}
    for one in explanations.explanations if explanations else ():
        score = one.balanced_accuracy if one.HasField("balanced_accuracy") else math.nan
        target = Target(one.layer, one.feature, one.label, score, tuple(one.shown), tuple(one.promotes))
        found[one.layer, one.feature] = target
    explained = set(found)
    for entry in feature_set.entries if feature_set else ():
        known = found.get((entry.layer, entry.feature), Target(entry.layer, entry.feature))
        found[entry.layer, entry.feature] = replace(
            known,
            label=known.label or entry.label,
            score=entry.score if math.isnan(known.score) else known.score,
        )
        explained.discard((entry.layer, entry.feature))
    chosen = [
        target
        for place, target in found.items()
        if (place not in explained or target.score >= min_score or min_score == 0) and _holds(target.label, words)
    ]
    chosen.sort(key=lambda target: (math.isnan(target.score), -target.score if target.score == target.score else 0))
    named = []
    for text in features:
        layer, _, feature = text.partition("/")
        place = (int(layer), int(feature))
        named.append(found.get(place, Target(*place)))
    return list({target.key: target for target in [*named, *chosen]}.values())


def _holds(label: str, words: Sequence[str]) -> bool:
    return not words or any(word.casefold() in label.casefold() for word in words)


def reference_targets(counts: FiringCounts, *, min_texts: int, max_share: float, limit: int, seed: int) -> list[Target]:
    """Every feature that fires in some, but not in most, of the reference texts; at random where a limit is set."""
    found = [Target(*place) for place in counts.between(min_texts, max_share * counts.texts)]
    if limit and len(found) > limit:
        found = sorted(random.Random(seed).sample(found, limit), key=lambda target: target.key)
    return found


def missing_targets(targets: Sequence[Target], seed_counts: FiringCounts, weak_share: float) -> list[int]:
    """Places of the targets that no seed text covers, then of those covered by too small a share of them, rarest first.

    Args:
        targets: the wanted features.
        seed_counts: in how many seed texts each fires.
        weak_share: share of the seed texts below which a feature is weakly covered; 0 leaves those out.
    """
    count = [seed_counts.of(target.layer, target.feature) for target in targets]
    weak = [place for place, texts in enumerate(count) if 0 < texts < weak_share * seed_counts.texts]
    return [place for place, texts in enumerate(count) if texts == 0] + sorted(weak, key=lambda place: count[place])
