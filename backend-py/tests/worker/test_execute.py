"""The job process: exit codes, terminal events and signals."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from qscope.runs import CancelRequest, RunFolder, derive_state, tail
from qscope.v1 import run_event_pb2 as ev


@pytest.fixture
def folder_of(tmp_path, experiment_of):
    return lambda model, **task: RunFolder.create(tmp_path / "runs", experiment_of(model, **task), model)


def _states(folder: RunFolder) -> list[int]:
    return [event.state_changed.state for event in tail(folder.events) if event.HasField("state_changed")]


@pytest.mark.parametrize(
    ("model", "code", "reason", "field"),
    [
        ("wrong-layer", 65, "NO_LAYER", "train_sae.layers[2]"),
        ("no-text", 1, "NO_TEXT", ""),
        ("bug", 70, "INTERNAL", ""),
        ("memory", 1, "OUT_OF_MEMORY", ""),
    ],
)
def test_failures(folder_of, execute, model, code, reason, field):
    folder = folder_of(model)
    assert execute(folder).wait() == code
    run = derive_state(folder, log_lines=30)
    assert (run.state, run.failure.reason, run.failure.field) == (ev.RUN_STATE_FAILED, reason, field)
    assert run.failure.remedy
    assert ("ZeroDivisionError: by nothing" in run.failure.traceback) == (model == "bug")
    assert any(run.failure.message in line for line in run.log_tail), "the log says it too"
    assert run.resumable


def test_success_is_final(folder_of, execute):
    folder = folder_of("done")
    assert execute(folder).wait() == 0
    assert _states(folder) == [ev.RUN_STATE_RUNNING, ev.RUN_STATE_SUCCEEDED]
    (metrics,) = [event.metrics for event in tail(folder.events) if event.HasField("metrics")]
    assert metrics.entries[0].values["threads"] == 1
    before = folder.events.read_bytes()
    assert execute(folder).wait() == 1
    assert folder.events.read_bytes() == before


def test_an_experiment_that_breaks_the_rules_is_refused_again(tmp_path, experiment_of, execute):
    experiment = experiment_of("done")
    experiment.train_sae.batch_tokens = 0
    folder = RunFolder.create(tmp_path, experiment, "r")
    assert execute(folder).wait() == 65
    run = derive_state(folder)
    assert (run.failure.reason, run.failure.field) == ("EXPERIMENT_INVALID", "train_sae.batch_tokens")
    assert not run.resumable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_stop_without_a_request_is_preemption(folder_of, execute, until, number):
    folder = folder_of("waiting")
    child = execute(folder)
    until(lambda: derive_state(folder).last_sequence > 3)
    child.send_signal(signal.SIGINT)
    child.send_signal(number)
    assert child.wait() == 75
    assert _states(folder) == [ev.RUN_STATE_RUNNING, ev.RUN_STATE_CANCELLING, ev.RUN_STATE_PREEMPTED]


def test_a_stop_on_request_is_cancellation(folder_of, execute, until):
    folder = folder_of("waiting")
    child = execute(folder)
    until(lambda: derive_state(folder).last_sequence > 3)
    record = folder.process
    folder.request_cancel(CancelRequest(record.pid, record.start_time, "graceful", "enough"))
    child.send_signal(signal.SIGTERM)
    assert child.wait() == 75
    *_, last = tail(folder.events)
    assert last.state_changed.state == ev.RUN_STATE_CANCELLED
    assert "enough" in last.state_changed.message


def test_two_processes_never_run_one_folder(folder_of, execute, until):
    folder = folder_of("waiting")
    first = execute(folder)
    until(lambda: derive_state(folder).last_sequence > 1)
    assert execute(folder).wait() == 1
    assert folder.process.pid == first.pid
    assert "Another process" in folder.log.read_text()
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 75
    assert [event.sequence for event in tail(folder.events)] == list(range(1, derive_state(folder).last_sequence + 1))


def test_the_second_sigterm_ends_a_recipe_that_does_not_listen(folder_of, execute, until):
    folder = folder_of("deaf")
    child = execute(folder)
    until(lambda: derive_state(folder).last_sequence >= 2)
    child.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.send_signal(signal.SIGTERM)
    assert child.wait(5) == 143
    assert derive_state(folder).failure.reason == "PROCESS_VANISHED"


def test_a_stop_that_hangs_ends_and_says_where_it_hung(folder_of, execute, until):
    folder = folder_of("deaf")
    child = execute(folder, QSCOPE_STOP_SECONDS="0.3")
    until(lambda: derive_state(folder).last_sequence >= 2)
    child.send_signal(signal.SIGTERM)
    assert child.wait(5) == 1
    assert "in _deaf" in folder.log.read_text()


def test_the_handlers_stand_before_torch_is_imported(tmp_path):
    code = (
        "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]);"
        "import qscope.execute as e; assert 'torch' not in sys.modules;"
        "stop = e.StopRequest(); stop.install(); assert not stop.requested;"
        "signal.raise_signal(signal.SIGTERM); assert stop.requested"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_usage_and_no_folder(tmp_path):
    assert subprocess.run([sys.executable, "-m", "qscope.execute"], capture_output=True, check=False).returncode == 2
    command = [sys.executable, "-m", "qscope.execute", str(tmp_path)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert "not a run folder" in child.stderr
    assert "Traceback" not in child.stderr
