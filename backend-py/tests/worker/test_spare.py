"""The job process kept ready: who gets it, what it does for its run, and that nobody is left with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qscope.runs import RunFolder, derive_state
from qscope.runs.process import start_time
from qscope.v1 import run_event_pb2 as ev
from qscope.v1 import run_pb2
from qscope.v1.experiment_pb2 import Experiment
from qscope.worker.spare import Spare, job_environment


def _spares(worker) -> list[int]:
    """Children of a worker that wait for a folder."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            words = (stat.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(fields[1]) == worker.process.pid and fields[0] != "Z" and words[-3:-1] == [b"qscope.execute", b"-"]:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_the_first_run_gets_the_process_that_waits(start_worker, usual):
    worker = start_worker("--owned", "--spare")
    (spare,) = _spares(worker)
    run = worker.start(usual("bug"))
    assert run.pid == spare
    ended = worker.wait(run)
    assert (ended.state, ended.failure.reason) == (ev.RUN_STATE_FAILED, "INTERNAL")
    # What it prints stands in the log of its run, as with any job.
    log = (Path(ended.folder) / "run.log").read_text()
    assert log.startswith("about to divide\n")
    assert "ZeroDivisionError" in log
    # An owner starts one run; the next begins from nothing.
    assert worker.start(usual("no-text")).pid != spare
    assert not _spares(worker)


def test_its_standard_input_and_output_are_those_of_a_job(start_worker, usual):
    plain, ready = start_worker("--owned"), start_worker("--owned", "--spare")
    streams = []
    for worker in (plain, ready):
        run = worker.start(usual("waiting"))
        streams.append([os.readlink(f"/proc/{run.pid}/fd/{number}").replace(run.run_id, "RUN") for number in range(3)])
        worker.cancel(run, run_pb2.CANCEL_MODE_GRACEFUL)
        assert worker.wait(run).state == ev.RUN_STATE_CANCELLED
    assert streams[0][0] == "/dev/null"
    assert streams[0][1].endswith("run.log")
    assert streams[0] == streams[1]


@pytest.mark.slow
def test_a_background_worker_replaces_it_when_idle(start_worker, usual, until):
    worker = start_worker("--spare")
    (first,) = _spares(worker)
    run = worker.start(usual("no-text"))
    assert run.pid == first
    worker.wait(run)
    (second,) = until(lambda: _spares(worker))
    assert second != first
    assert worker.start(usual("no-text")).pid == second


def test_one_that_died_costs_nothing(start_worker, usual):
    worker = start_worker("--owned", "--spare")
    (spare,) = _spares(worker)
    os.kill(spare, signal.SIGKILL)
    run = worker.start(usual("no-text"))
    assert run.pid != spare
    assert worker.wait(run).failure.reason == "NO_TEXT"


@pytest.mark.parametrize("owner", [["--owned"], []], ids=["owned", "background"])
def test_a_run_with_threads_of_its_own_starts_from_nothing(start_worker, experiment_of, until, owner):
    worker = start_worker("--spare", *owner)
    (spare,) = _spares(worker)
    run = worker.start(experiment_of("waiting"))
    assert run.pid != spare
    if owner:
        # It would take a core from the run.
        until(lambda: not _spares(worker))
    else:
        assert _spares(worker) == [spare]


def test_a_stop_that_comes_during_its_imports_is_heard(start_worker, usual, tmp_path):
    (tmp_path / "transformers.py").write_text("import time; time.sleep(600)\n")
    path = os.pathsep.join([str(tmp_path), _INJECTED])
    worker = start_worker("--owned", "--spare", environment={"PYTHONPATH": path})
    run = worker.start(usual("waiting"))
    worker.cancel(run, run_pb2.CANCEL_MODE_GRACEFUL, "early")
    ended = worker.wait(run)
    assert ended.state == ev.RUN_STATE_CANCELLED
    assert worker.events(run)[-1].state_changed.message == "stopped before the first step: early"


@pytest.mark.parametrize("end", ["end of stdin", "SIGTERM", "SIGKILL"])
def test_it_leaves_with_its_worker(start_worker, until, end):
    worker = start_worker("--owned", "--spare")
    (spare,) = _spares(worker)
    began = start_time(spare)
    if end == "end of stdin":
        worker.process.stdin.close()
    else:
        worker.process.send_signal(getattr(signal, end))
    worker.process.wait(30)
    until(lambda: start_time(spare) != began)


def test_what_cannot_be_imported_is_told_where_it_is_needed(folder_for_spare, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemError('no torch here')\n")
    # The recipe asks for torch as well: its error is the one that the run reports.
    child = _spare_process(PYTHONPATH=os.pathsep.join([str(tmp_path), _INJECTED]))
    child.communicate(os.fsencode(folder_for_spare("done").path), timeout=60)
    failure = derive_state(folder_for_spare.last).failure
    assert failure.message == "SystemError: no torch here"
    assert failure.traceback


def test_it_does_nothing_without_a_folder():
    child = _spare_process()
    assert child.communicate(b"", timeout=60) == (b"", b"")
    assert child.returncode == 0


def test_nothing_is_kept_that_was_not_asked_for():
    spare = Spare()
    spare.renew()
    assert spare.take(Path("/nowhere")) is None


# The package of this checkout, also where several share one environment.
_INJECTED = os.pathsep.join([str(Path(__file__).parent / "injected"), str(Path(__file__).parents[2])])


def _spare_process(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "qscope.execute", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": _INJECTED, **environment},
    )


@pytest.fixture
def usual(experiment_of) -> Callable[[str], Experiment]:
    """``usual(model)``: an experiment of the tests that leaves the number of threads open."""

    def make(model: str) -> Experiment:
        experiment = experiment_of(model)
        experiment.compute.threads = 0
        return experiment

    return make


@pytest.fixture
def folder_for_spare(tmp_path, usual):
    """``folder_for_spare(model)``: a new run folder, also to be found as ``.last``."""

    class Make:
        last: RunFolder

        def __call__(self, model: str) -> RunFolder:
            self.last = RunFolder.create(tmp_path / "runs", usual(model), "request", "")
            return self.last

    return Make()


def test_threads_that_wait_sleep_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert job_environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert job_environment()["OMP_WAIT_POLICY"] == "ACTIVE"
