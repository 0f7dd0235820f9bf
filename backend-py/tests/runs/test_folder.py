"""Run folders: made once per request, found by any handle, never confused about who works in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from qscope.errors import UserError
from qscope.runs import (
    CancelRequest,
    Journal,
    ProcessRecord,
    RunFolder,
    derive_state,
    find_run,
    list_runs,
    violations,
)
from qscope.runs.folder import ended
from qscope.runs.process import start_time
from qscope.v1 import run_event_pb2 as ev
from qscope.v1.experiment_pb2 import Experiment


def test_a_new_folder_is_complete(run, experiment):
    assert run.experiment == experiment
    assert (run.path / "config.yaml").read_text() == "name: small\n"
    assert run.run_id.startswith("small-")
    assert run.info["request_id"] == "request-1"
    assert run.info["verb"] == "train-sae"
    assert run.info["seed"] == 3
    assert run.info["versions"].keys() >= {"qscope", "python", "torch"}
    frozen = json.loads((run.path / "experiment.json").read_text())
    assert frozen["train_sae"]["batch_tokens"] == 10
    assert derive_state(run).state == ev.RUN_STATE_QUEUED


def test_a_request_makes_one_run(run, experiment, tmp_path):
    runs = run.path.parent
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: RunFolder.create(runs, experiment, "request-2").path, range(16)))
    assert len(set(made)) == 1
    assert RunFolder.create(runs, experiment, "request-1").path == run.path
    other = Experiment()
    other.CopyFrom(experiment)
    other.name = "renamed"
    with pytest.raises(UserError) as caught:
        RunFolder.create(runs, other, "request-1")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert len(list_runs(runs)) == 2


def test_a_folder_that_cannot_be_made_is_a_users_error(tmp_path, experiment):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        RunFolder.create(tmp_path / "file" / "runs", experiment, "r")
    assert (caught.value.reason, caught.value.field) == ("RUNS_FOLDER_UNUSABLE", "runs_folder")
    with pytest.raises(UserError, match=r"run\.json"):
        RunFolder(tmp_path)


def test_runs_are_found_by_id_prefix_short_id_and_latest(run, experiment):
    runs = run.path.parent
    second = RunFolder.create(runs, experiment, "request-2")
    assert find_run(runs, run.run_id).path == run.path
    assert find_run(runs, second.run_id[-8:]).path == second.path
    assert find_run(runs, second.run_id[:-3]).path == second.path
    assert find_run(runs, "latest").path == second.path
    assert [item.run_id for item in list_runs(runs)] == [second.run_id, run.run_id]
    for handle, reason in (("small-", "RUN_AMBIGUOUS"), ("nothing", "RUN_NOT_FOUND"), ("../x", "RUN_NOT_FOUND")):
        with pytest.raises(UserError) as caught:
            find_run(runs, handle)
        assert caught.value.reason == reason
    with pytest.raises(UserError):
        find_run(runs / "absent", "latest")


# -- processes and states --------------------------------------------------------------------------------------------


def _own(run: RunFolder) -> ProcessRecord:
    record = ProcessRecord.of(os.getpid(), 0)
    run.record_process(record)
    return record


def _append(run: RunFolder, state: ev.RunState) -> None:
    with Journal(run.events) as journal:
        journal.append(state_changed=ev.StateChanged(state=state))


def test_states_of_a_living_process(run):
    record = _own(run)
    assert derive_state(run).state == ev.RUN_STATE_QUEUED
    _append(run, ev.RUN_STATE_RUNNING)
    assert (derive_state(run).state, derive_state(run).pid) == (ev.RUN_STATE_RUNNING, os.getpid())
    run.request_cancel(CancelRequest(record.pid, record.start_time + 1, "graceful"))
    assert derive_state(run).state == ev.RUN_STATE_RUNNING, "a request to an earlier attempt means nothing"
    run.request_cancel(CancelRequest(record.pid, record.start_time, "graceful"))
    assert derive_state(run).state == ev.RUN_STATE_CANCELLING
    _append(run, ev.RUN_STATE_CANCELLED)
    assert derive_state(run).state == ev.RUN_STATE_CANCELLED
    assert derive_state(run).resumable
    with subprocess.Popen(["sleep", "60"]) as resumed:
        run.record_process(ProcessRecord.of(resumed.pid, journal_sequence=2))
        assert derive_state(run).state == ev.RUN_STATE_QUEUED, "resumed, and nothing written yet"
        resumed.kill()
    found = derive_state(run)
    assert (found.state, found.failure.reason) == (ev.RUN_STATE_FAILED, "PROCESS_VANISHED")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start_time": 1}, "vanished."),
        ({"exit_code": -9}, "SIGKILL"),
        ({"exit_code": -9, "oom_kills": -1}, "likely out of memory"),
        ({"exit_code": 137, "oom_kills": 0, "oom_killed": True}, "SIGKILL, out of memory"),
        ({"exit_code": -11}, "SIGSEGV"),
        ({"exit_code": 3}, "exit code 3"),
    ],
)
def test_a_vanished_process_is_a_failure_with_its_reason(run, change, words):
    run.record_process(replace(ProcessRecord.of(os.getpid(), 0), **change))
    run.log.write_text("\n".join(f"line {i}" for i in range(50)))
    _append(run, ev.RUN_STATE_RUNNING)
    found = derive_state(run, log_lines=5)
    assert (found.state, found.failure.reason, found.pid) == (ev.RUN_STATE_FAILED, "PROCESS_VANISHED", 0)
    assert words in found.failure.message
    assert run.run_id in found.failure.remedy
    assert list(found.log_tail) == [f"line {i}" for i in range(45, 50)]
    assert found.resumable


def test_a_plain_kill_is_not_called_out_of_memory_when_the_kernel_counted_none():
    record = replace(ProcessRecord.of(os.getpid(), 0), oom_kills=4)
    assert ended(record, -9, 5).oom_killed
    assert not ended(record, -9, 4).oom_killed
    assert not ended(replace(record, oom_kills=-1), -9, 4).oom_killed


def test_a_process_that_was_asked_to_stop_and_is_gone_is_cancelled(run):
    record = replace(ProcessRecord.of(os.getpid(), 0), start_time=7)
    run.record_process(record)
    run.request_cancel(CancelRequest(record.pid, 7, "immediate", "why"))
    assert derive_state(run).state == ev.RUN_STATE_CANCELLED


def test_a_zombie_and_a_reused_id_do_not_live():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    record = ProcessRecord.of(child.pid, 0)
    assert record.lives
    assert not replace(record, start_time=record.start_time + 1).lives
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    os.kill(child.pid, 0)
    assert not record.lives, "a zombie answers kill -0"
    child.wait()
    assert start_time(child.pid) is None


def test_a_process_on_another_machine_is_judged_by_its_lock(run):
    foreign = replace(ProcessRecord.of(os.getpid(), 0), kernel="other", host="elsewhere")
    run.record_process(foreign)
    assert not run.process_lives()
    with run.lock():
        assert run.process_lives()
        with pytest.raises(UserError) as caught, run.lock(wait_seconds=0.05):
            pass
    assert caught.value.reason == "RUN_ACTIVE"
    with run.lock():
        run.record_process(replace(foreign, host=ProcessRecord.of(os.getpid(), 0).host))
        assert not run.process_lives(), "this machine was started anew"


def test_a_damaged_journal_is_shown_and_does_not_hide_the_others(run, experiment):
    RunFolder.create(run.path.parent, experiment, "request-2")
    run.events.write_text("garbage\n")
    (run.path / "process.json").write_text("{}")
    states = {found.run_id: found for found in list_runs(run.path.parent)}
    assert len(states) == 2
    assert states[run.run_id].failure.reason == "JOURNAL_DAMAGED"


def test_reading_a_run_does_not_import_torch(run):
    code = (
        "import sys; from qscope.runs import list_runs, violations, RunFolder; runs = list_runs(sys.argv[1]);"
        "violations(RunFolder(runs[0].folder).experiment); assert len(runs) == 1; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(run.path.parent)], check=True)


def test_violations_name_the_field(experiment):
    assert violations(experiment) == []
    experiment.train_sae.formats.append(0)
    experiment.train_sae.sae.d_sae = 2
    experiment.model = ""
    found = dict(violations(experiment))
    assert found.keys() == {"model", "train_sae.formats[1]", "train_sae.sae"}
    assert found["train_sae.sae"].startswith("k must not exceed d_sae")
