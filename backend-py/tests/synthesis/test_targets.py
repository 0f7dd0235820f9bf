"""Which features are wanted, and which of them are missing."""

from __future__ import annotations

import numpy as np
import pytest

from qscope.errors import UserError
from qscope.features.files import load_explanations
from qscope.runs.files import write_message
from qscope.synthesis.fired import STRIDE, Fired, FiringCounts
from qscope.synthesis.rows import read_rows
from qscope.synthesis.targets import Target, missing_targets, named_targets, reference_targets
from qscope.v1.explain_pb2 import Explanation, ExplanationSet
from qscope.v1.features_pb2 import FeatureContext, FeatureEntry, FeatureSet, SaeRecord
from qscope.v1.synthesize_pb2 import TextRows


def fired(*keys: int) -> Fired:
    ones = np.ones(len(keys))
    return Fired(np.array(sorted(keys), dtype=np.int64), ones, ones, np.zeros(1, np.int32))


def explained() -> ExplanationSet:
    return ExplanationSet(
        explanations=[
            Explanation(
                layer=1, feature=2, label="German nouns", balanced_accuracy=0.9, shown=[FeatureContext(text="x")]
            ),
            Explanation(layer=1, feature=3, label="weak", balanced_accuracy=0.55),
            Explanation(layer=2, feature=4, label="unscored"),
        ],
        sae_records=[SaeRecord(layer=1, d_sae=8, fingerprint="f"), SaeRecord(layer=2, d_sae=8)],
    )


def test_named_features_come_first_then_the_best_scored() -> None:
    found = FeatureSet(entries=[FeatureEntry(layer=3, feature=1, score=5.0, label="set")])
    targets = named_targets(["7/7", "1/3"], found, explained())
    assert [target.name for target in targets] == ["7/7", "1/3", "3/1", "1/2", "2/4"]
    assert targets[1].label == "weak", "what is explained labels what is named"
    assert [context.text for context in targets[3].contexts] == ["x"]


def test_a_score_and_words_choose_among_explanations() -> None:
    assert [t.name for t in named_targets([], None, explained(), min_score=0.6)] == ["1/2"]
    assert [t.name for t in named_targets([], None, explained(), words=["GERMAN", "x"])] == ["1/2"]
    # What is named stays, whatever its score; so does what a feature set holds.
    assert [t.name for t in named_targets(["1/3"], None, explained(), min_score=0.6)] == ["1/3", "1/2"]
    both = FeatureSet(entries=[FeatureEntry(layer=1, feature=3, score=2.0, label="other")])
    (target,) = [t for t in named_targets([], both, explained(), min_score=0.6) if t.feature == 3]
    assert (target.label, target.score) == ("weak", 0.55)


def test_of_a_reference_what_fires_in_some_texts_and_not_in_most() -> None:
    counts = FiringCounts({1: 6, 2: 6})
    for keys in ([1, 2, 3], [1, 2], [1], [1, STRIDE]):
        counts.add(fired(*(key + STRIDE for key in keys)))
    chosen = {"min_texts": 2, "max_share": 0.5, "limit": 0, "seed": 0}
    assert [t.name for t in reference_targets(counts, **chosen)] == ["1/2"]
    assert [t.name for t in reference_targets(counts, **{**chosen, "min_texts": 1})] == ["1/2", "1/3", "2/0"]
    drawn = {tuple(reference_targets(counts, **{**chosen, "min_texts": 1, "limit": 2, "seed": s})) for s in range(30)}
    assert len(drawn) == 3
    assert all(len(one) == 2 for one in drawn)
    assert [t.name for t in reference_targets(counts, **{**chosen, "max_share": 1})] == ["1/1", "1/2"]


def test_missing_ones_first_then_weak_ones_from_the_rarest() -> None:
    counts = FiringCounts({0: 5})
    for keys in ([1, 2, 3], [1, 2], [1], [1]):
        counts.add(fired(*keys))
    targets = [Target(0, feature) for feature in (1, 2, 3, 4, 0)]
    assert missing_targets(targets, counts, 0.0) == [3, 4]
    assert missing_targets(targets, counts, 0.51) == [3, 4, 2, 1]
    assert missing_targets(targets, counts, 0.5) == [3, 4, 2]


def test_explanations_are_read_whole_or_refused(tmp_path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    write_message(folder / "explanations.json", explained())
    assert load_explanations(tmp_path).explanations[0].label == "German nouns"
    with pytest.raises(UserError) as caught:
        load_explanations(tmp_path / "none", field="f")
    assert (caught.value.reason, caught.value.field) == ("EXPLANATIONS_NOT_FOUND", "f")
    broken = explained()
    broken.explanations[0].feature = 8
    write_message(folder / "explanations.json", broken)
    with pytest.raises(UserError) as caught:
        load_explanations(tmp_path)
    assert caught.value.reason == "FEATURES_DAMAGED"
    (folder / "explanations.json").write_text("{")
    with pytest.raises(UserError):
        load_explanations(tmp_path)


def test_rows_are_skipped_and_limited(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"text": "t{n}"}}\n' for n in range(6)) + "no row\n")
    found = read_rows(TextRows(source=str(path), skip=2, limit=3), "seed_data", refuse_faults=False, at="s")
    assert [item.prompt for item in found.items] == ["t2", "t3", "t4"]
    rest = read_rows(TextRows(source=str(path), skip=2), "seed_data", refuse_faults=False, at="s")
    assert (len(rest.items), len(rest.faults)) == (4, 1)
    with pytest.raises(UserError) as caught:
        read_rows(TextRows(source=str(path), skip=6), "seed_data", refuse_faults=False, at="s")
    assert (caught.value.reason, caught.value.field) == ("TEXTS_SKIPPED", "s.skip")
    assert read_rows(TextRows(), "reference", refuse_faults=False, at="s") is None
