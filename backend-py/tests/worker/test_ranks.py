"""A run of two ranks: one journal, one end, and nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from qscope.runs import RunFolder, derive_state, seed_of, tail
from qscope.v1 import run_event_pb2 as ev
from qscope.v1.model_pb2 import PRECISION_AUTO, ModelOptions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
]
STEPS = 60


@pytest.fixture
def folder_of(tmp_path, experiment_of):
    def make(name: str = "r", event: str = "", threads: int = 4, **task) -> RunFolder:
        experiment = experiment_of("ranks", tokens=STEPS, batch_tokens=20, **task)
        experiment.model_options.CopyFrom(ModelOptions(revision=event, precision=PRECISION_AUTO))
        experiment.compute.processes = 2
        experiment.compute.threads = threads
        return RunFolder.create(tmp_path / "runs", experiment, name)

    return make


def _steps(folder: RunFolder) -> int:
    batches = [event.metrics.entries[0].step for event in tail(folder.events) if event.HasField("metrics")]
    return max(batches, default=0)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _ranks(folder: RunFolder, until) -> list[int]:
    """Process ids of the ranks, once they train."""
    until(lambda: _steps(folder) > 2, 60)
    return _children(folder.process.pid)


def _states(folder: RunFolder) -> list[int]:
    return [event.state_changed.state for event in tail(folder.events) if event.HasField("state_changed")]


def _gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def undisturbed() -> str:
    """What one process makes of the walks of both."""
    first, second = (torch.Generator().manual_seed(seed_of(3, f"walk {rank}")) for rank in range(2))
    walk = torch.zeros(8)
    for _ in range(STEPS):
        walk = walk * 0.9 + (torch.randn(8, generator=first) + torch.randn(8, generator=second))
    return " ".join(map(str, walk.tolist()))


def test_ranks_have_one_journal_one_result_and_their_share_of_the_threads(folder_of, execute):
    folder = folder_of()
    child = execute(folder)
    assert child.wait() == 0, folder.log.read_text()
    events = list(tail(folder.events))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert _states(folder) == [ev.RUN_STATE_RUNNING, ev.RUN_STATE_SUCCEEDED]
    batches = [event.metrics.entries[0] for event in events if event.HasField("metrics")]
    assert [batch.step for batch in batches] == list(range(STEPS + 1)), "each step is told once"
    assert dict(batches[0].values) == {"threads": 2, "count": 2}
    assert [event.log.text for event in events if event.HasField("log")] == ["rank 0 from step 0"]
    assert folder.rank_log(1).read_text() == "rank 1 from step 0\n"
    assert folder.process.pid == child.pid
    assert [path.name for path in folder.artifacts.iterdir()] == ["walk.txt"]
    assert (folder.artifacts / "walk.txt").read_text() == undisturbed()


@pytest.mark.parametrize("whom", ["the run", "its group", "rank 1 alone"])
def test_all_ranks_stop_after_the_same_step_and_go_on_to_the_same_end(folder_of, execute, until, whom):
    folder = folder_of("stopped")
    child = execute(folder, start_new_session=True)
    ranks = _ranks(folder, until)
    if whom == "the run":
        child.send_signal(signal.SIGTERM)
    elif whom == "its group":
        os.killpg(child.pid, signal.SIGTERM)
    else:
        os.kill(ranks[1], signal.SIGUSR2)
    assert child.wait() == 75, folder.log.read_text()
    assert _gone(ranks)
    assert _states(folder) == [ev.RUN_STATE_RUNNING, ev.RUN_STATE_CANCELLING, ev.RUN_STATE_PREEMPTED]
    (checkpoint,) = folder.checkpoints.iterdir()
    steps = json.loads((checkpoint / "state.json").read_text())["steps"]
    assert steps == [_steps(folder)] * 2
    assert 0 < steps[0] < STEPS
    assert execute(folder).wait() == 0
    assert (folder.artifacts / "walk.txt").read_text() == undisturbed()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_and_is_named(folder_of, execute, until, rank):
    folder = folder_of()
    child = execute(folder)
    ranks = _ranks(folder, until)
    os.kill(ranks[rank], signal.SIGKILL)
    assert child.wait(10) == 1
    assert _gone(ranks)
    run = derive_state(folder)
    assert (run.state, run.failure.reason) == (ev.RUN_STATE_FAILED, "RANK_VANISHED")
    assert run.failure.message.startswith(f"Rank {rank} of 2 vanished (SIGKILL")
    assert run.failure.remedy.endswith(f"qscope runs resume {folder.run_id}")
    assert execute(folder).wait() == 0
    assert _states(folder)[-1] == ev.RUN_STATE_SUCCEEDED


def test_no_rank_outlives_the_process_that_started_it(folder_of, execute, until):
    folder = folder_of()
    child = execute(folder)
    ranks = _ranks(folder, until)
    assert len(ranks) == 2
    child.kill()
    child.wait()
    until(lambda: _gone(ranks), 5)
    assert derive_state(folder).failure.reason == "PROCESS_VANISHED"


@pytest.mark.parametrize(
    ("event", "code", "reason", "message"),
    [
        ("1 wrong-layer", 65, "NO_LAYER", "Rank 1 of 2: There is no layer 99."),
        ("all wrong-layer", 65, "NO_LAYER", "There is no layer 99."),
        ("0 no-text", 1, "NO_TEXT", "Rank 0 of 2: There is no text."),
        ("1 bug", 70, "INTERNAL", "Rank 1 of 2: ZeroDivisionError: by nothing"),
        ("1 memory", 1, "OUT_OF_MEMORY", "Rank 1 of 2: The machine ran out of memory."),
        ("0 leave-without-a-word", 1, "RANK_VANISHED", "Rank 0 of 2 vanished (exit code 0)."),
    ],
)
def test_the_rank_that_failed_first_is_told(folder_of, execute, event, code, reason, message):
    folder = folder_of(event=event)
    assert execute(folder).wait(60) == code
    run = derive_state(folder)
    assert (run.state, run.failure.reason, run.failure.message) == (ev.RUN_STATE_FAILED, reason, message)
    assert ("ZeroDivisionError: by nothing" in run.failure.traceback) == event.endswith("bug")
    assert run.failure.message in folder.log.read_text()


def test_a_second_sigterm_ends_ranks_that_do_not_listen(folder_of, execute, until):
    folder = folder_of(event="all deaf")
    child = execute(folder)
    ranks = _ranks(folder, until)
    until(lambda: "deaf" in folder.rank_log(1).read_text())
    child.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    child.send_signal(signal.SIGTERM)
    assert child.wait(5) == 143
    until(lambda: _gone(ranks), 5)


def test_a_stop_that_hangs_in_a_rank_ends_and_says_where(folder_of, execute, until):
    folder = folder_of(event="1 deaf")
    child = execute(folder, QSCOPE_STOP_SECONDS="2")
    _ranks(folder, until)
    until(lambda: "deaf" in folder.rank_log(1).read_text())
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 1
    assert "in _deaf" in folder.rank_log(1).read_text()
