"""What a recipe says reaches the journal, in measure; its seeds are the same everywhere."""

from __future__ import annotations

import math
import re
import sys

import pytest
from google.protobuf import json_format

from qscope.errors import UserError
from qscope.runs import Journal, RunContext, RunFolder, RunStopped, tail
from qscope.runs.context import _Rate
from qscope.v1 import report_pb2
from qscope.v1 import run_event_pb2 as ev


@pytest.fixture
def journal(run):
    with Journal(run.events) as journal:
        yield journal


def test_seeds_depend_on_the_experiment_and_the_name_only(run, journal, experiment, tmp_path):
    context = RunContext(run, journal)
    # Golden values: a change would break the resume of every run on disk.
    assert context.seed_for("buffer") == 1564530169304729269
    assert context.seed_for("text") != context.seed_for("buffer")
    assert 0 <= context.seed_for("") < 2**63
    experiment.seed += 1
    other = RunFolder.create(tmp_path / "others", experiment, "r")
    assert RunContext(other, journal).seed_for("buffer") != context.seed_for("buffer")


def test_everything_a_recipe_says_is_in_the_journal(run, journal):
    context = RunContext(run, journal)
    context.info("hello")
    context.warning("careful")
    context.metrics(7, {-1: {"loss": 0.5}, 3: {"fvu": math.nan, "l0": math.inf}})
    context.checkpoints.save(7, {}, {"a": 1})
    (context.artifacts / "report.json").write_text("{}")
    context.artifact(context.artifacts / "report.json", "evaluation", "a report")
    context.artifact("artifacts/report.json", "evaluation")
    info, warning, metrics, checkpoint, first, second = tail(run.events)
    assert (info.log.level, info.log.text) == (ev.LOG_LEVEL_INFO, "hello")
    assert warning.log.level == ev.LOG_LEVEL_WARNING
    assert metrics.metrics.entries[0].values["loss"] == 0.5
    assert metrics.metrics.entries[1].layer == 3
    assert math.isnan(metrics.metrics.entries[1].values["fvu"])
    assert metrics.metrics.entries[1].values["l0"] == math.inf
    assert (checkpoint.checkpoint.path, checkpoint.checkpoint.step) == ("checkpoints/step-000000007", 7)
    assert first.artifact.path == second.artifact.path == "artifacts/report.json"


def test_an_artifact_lies_inside_the_run_folder(run, journal, tmp_path):
    with pytest.raises(ValueError, match="subpath"):
        RunContext(run, journal).artifact(tmp_path / "elsewhere", "x")


def _report(**section) -> report_pb2.Report:
    return report_pb2.Report(title="found", sections=[report_pb2.ReportSection(heading="part", **section)])


def test_a_report_is_whole_announced_and_replaces_the_earlier_one(run, journal):
    context = RunContext(run, journal)
    context.report(report_pb2.Report(title="draft"))
    cell = report_pb2.TableCell(number=math.nan, spread=0.5, n=3)
    table = report_pb2.Table(columns=[{"name": "Ü\n<b>"}], rows=[report_pb2.TableRow(cells=[cell])])
    context.report(_report(table=table))
    read = json_format.Parse((context.artifacts / "report.json").read_text(encoding="utf-8"), report_pb2.Report())
    assert math.isnan(read.sections[0].table.rows[0].cells[0].number)
    assert read.sections[0].table.columns[0].name == "Ü\n<b>"
    assert [path.name for path in context.artifacts.iterdir()] == ["report.json"]
    assert [(event.artifact.kind, event.artifact.path, event.artifact.description) for event in tail(run.events)] == [
        ("report", "artifacts/report.json", "draft"),
        ("report", "artifacts/report.json", "found"),
    ]


_AXES = {"x": report_pb2.PlotAxis(label="step"), "y": report_pb2.PlotAxis(label="FVU")}
_BROKEN = {
    "line_plot.series[0]": {"line_plot": report_pb2.LinePlot(**_AXES, series=[{"x": [1, 2], "y": [1]}])},
    "line_plot": {
        "line_plot": report_pb2.LinePlot(**_AXES, series=[{"x": [1], "y": [1], "low": [0], "high": [2]}]),
    },
    "table": {"table": report_pb2.Table(columns=[{"name": "a"}], rows=[report_pb2.TableRow()])},
    "matrix": {"matrix": report_pb2.Matrix(row_labels=["a"], column_labels=["b"], values=[1, 2])},
    "samples": {"samples": report_pb2.Samples(arms=[{"name": "a"}], rows=[{"prompt": "p"}])},
}


@pytest.mark.parametrize("place", _BROKEN)
def test_a_report_whose_numbers_do_not_fit_together_is_a_bug_of_the_recipe(run, journal, place):
    context = RunContext(run, journal)
    with pytest.raises(AssertionError, match=re.escape(f"'sections[0].{place}'")):
        context.report(_report(**_BROKEN[place]))
    assert list(context.artifacts.iterdir()) == []
    assert list(tail(run.events)) == []


def test_checkpoints_keep_what_the_experiment_says(run, journal):
    assert RunContext(run, journal).checkpoints.keep == 2


def test_a_damaged_checkpoint_becomes_a_warning_in_the_journal(run, journal):
    context = RunContext(run, journal)
    context.checkpoints.save(1, {}, {})
    (context.checkpoints.save(2, {}, {}) / "state.json").unlink()
    assert context.checkpoints.load_newest().step == 1
    *_, last = tail(run.events)
    assert last.log.level == ev.LOG_LEVEL_WARNING
    assert "damaged" in last.log.text


def test_stopping_is_said_once_and_leaves_through_the_recipe(run, journal):
    asked = False
    context = RunContext(run, journal, lambda: asked)
    assert not context.stop_requested
    asked = True
    assert context.stop_requested
    assert context.stop_requested
    assert [event.state_changed.state for event in tail(run.events)] == [ev.RUN_STATE_CANCELLING]
    with pytest.raises(RunStopped) as caught:
        context.stop(12)
    assert caught.value.step == 12
    assert not isinstance(caught.value, Exception), "a recipe's own error handling must not swallow a stop"


def test_progress_is_rare_smooth_and_complete():
    rate, written = _Rate(), []
    for tick in range(10_001):
        now, current = tick / 100, tick * 10
        if (value := rate.update("training", current, 100_000, now)) is not None:
            written.append((now, current, value))
    assert written[0] == (0.0, 0, 0.0)
    assert written[-1][:2] == (100.0, 100_000)
    assert len(written) <= 100 * 4 + 2
    assert all(value == pytest.approx(1000, rel=0.01) for _, _, value in written[1:])
    assert rate.update("evaluating", 0, 5, 100.0) == 0.0, "a new phase starts anew, at once"
    assert rate.update("evaluating", 5, 5, 100.01) is not None, "the end of a phase is always written"
    assert rate.update("evaluating", 5, 5, 100.02) is None, "but only once"


def test_the_rate_forgets_a_slow_start():
    rate = _Rate()
    value, current = 0.0, 0.0
    for tick in range(400):
        current += 1.0 if tick < 40 else 10.0
        value = rate.update("training", current, 1e9, tick * 0.25) or 0.0
    assert value == pytest.approx(40.0, rel=0.01)


@pytest.mark.parametrize(("package", "setting"), [("tensorboard", "tensorboard"), ("wandb", "wandb_project")])
def test_a_missing_sink_is_refused_with_the_command_that_installs_it(
    tmp_path, experiment, journal, monkeypatch, package, setting
):
    for name in (package, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    setattr(experiment.train_sae.metrics, setting, True if setting == "tensorboard" else "project")
    folder = RunFolder.create(tmp_path / "runs", experiment, "r")
    with pytest.raises(UserError, match=f"pip install {package}") as caught:
        RunContext(folder, journal)
    assert caught.value.field == f"train_sae.metrics.{setting}"
