"""A run that is resumed reads a data set of the hub at the commit it began with, whatever the branch means by then."""

from __future__ import annotations

from types import SimpleNamespace

from huggingface_hub import HfApi

from qscope.recipes.shared import as_begun, pin_revision
from qscope.runs import Ranks
from qscope.v1.classify_pb2 import LabelledSource
from qscope.v1.experiment_pb2 import Experiment
from qscope.v1.redundancy_pb2 import BenchmarkSource, BenchRedundancy
from qscope.v1.synthesize_pb2 import TextRows


def test_the_commit_is_looked_up_once(tmp_path, monkeypatch) -> None:
    asked = []

    def moves_on(self, name, *, revision, timeout):
        asked.append((name, revision))
        return SimpleNamespace(sha=f"{len(asked):040d}")

    monkeypatch.setattr(HfApi, "dataset_info", moves_on)

    def attempt():
        sources = [BenchmarkSource(name="a", source="some/rows", revision="v2"), BenchmarkSource(name="b", task="t")]
        experiment = Experiment(bench_redundancy=BenchRedundancy(benchmarks=sources))
        context = SimpleNamespace(artifacts=tmp_path, folder=tmp_path / "run", experiment=experiment, ranks=Ranks())
        begun = as_begun(context)
        for index, source in enumerate(experiment.bench_redundancy.benchmarks):
            pin_revision(context, source, f"bench_redundancy.benchmarks[{index}]")
        return begun.bench_redundancy.benchmarks, experiment.bench_redundancy.benchmarks

    first, second = attempt(), attempt()
    assert asked == [("some/rows", "v2")]
    assert first[0][0].revision == "v2", "the first attempt is admitted by what the experiment says"
    assert [one[0].revision for one in (first[1], second[0], second[1])] == [f"{1:040d}"] * 3
    assert second[1][1].revision == "", "a task has no revision"


def test_what_is_no_data_set_of_the_hub_is_left_alone(tmp_path, monkeypatch) -> None:
    def nobody(self, name, **options):
        raise AssertionError(f"asked for {name}")

    monkeypatch.setattr(HfApi, "dataset_info", nobody)
    context = SimpleNamespace(artifacts=tmp_path, folder=tmp_path / "run", ranks=Ranks())
    (tmp_path / "clone").mkdir()
    sources = (
        LabelledSource(source="embedded"),
        LabelledSource(source=str(tmp_path / "clone"), split="test"),
        LabelledSource(source="data/*.jsonl"),
        TextRows(),
    )
    for source in sources:
        pin_revision(context, source, "classify.data[0]")
        assert source.revision == ""
    assert not (tmp_path / "places.json").exists()
