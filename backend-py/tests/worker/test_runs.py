"""Runs through a real worker: started once, watched from anywhere, stopped, killed and resumed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import uuid
from pathlib import Path

import grpc
import pytest

from qscope.errors import UserError
from qscope.runs import Journal, ProcessRecord, RunContext, RunFolder, find_run
from qscope.runs.process import start_time
from qscope.v1 import run_event_pb2 as ev
from qscope.v1 import run_pb2
from qscope.worker import watch
from qscope.worker.jobs import Jobs


def _code(call) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def _sequences(responses) -> list[int]:
    return [event.sequence for response in responses for event in response.events]


def test_a_request_starts_one_run(worker, experiment_of):
    request_id, experiment = str(uuid.uuid4()), experiment_of("waiting")
    started: list[run_pb2.Run] = []
    threads = [
        threading.Thread(target=lambda: started.append(worker.start(experiment, request_id=request_id)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.run_id for run in started}) == 1
    assert len({run.pid for run in started}) == 1
    experiment.seed += 1
    assert _code(lambda: worker.start(experiment, request_id=request_id)) == grpc.StatusCode.ALREADY_EXISTS
    worker.cancel(started[0], run_pb2.CANCEL_MODE_GRACEFUL)
    ended = worker.wait(started[0])
    experiment.seed -= 1
    assert worker.start(experiment, request_id=request_id) == ended, "an ended run is not started again"


def test_watchers_see_every_event_once_and_may_come_back(worker, experiment_of, until):
    run = worker.start(experiment_of("waiting"))
    seen: list[list[int]] = [[], []]

    def follow(to: list[int]) -> None:
        """Drops the stream after every few responses and comes back with the last sequence."""
        while True:
            stream = worker.watch(run, after_sequence=to[-1] if to else 0)
            for count, response in enumerate(stream):
                to.extend(event.sequence for event in response.events)
                if count == 2:
                    stream.cancel()
                    break
            else:
                return

    threads = [threading.Thread(target=follow, args=(to,)) for to in seen]
    for thread in threads:
        thread.start()
    until(lambda: worker.get(run).last_sequence > 60)
    worker.cancel(run, run_pb2.CANCEL_MODE_GRACEFUL)
    for thread in threads:
        thread.join()
    ended = worker.get(run)
    assert ended.state == ev.RUN_STATE_CANCELLED
    assert seen == [list(range(1, ended.last_sequence + 1))] * 2
    assert _sequences(worker.watch(run, after_sequence=ended.last_sequence)) == []
    beyond = worker.watch(run, after_sequence=ended.last_sequence + 1)
    assert _code(lambda: next(beyond)) == grpc.StatusCode.OUT_OF_RANGE


async def test_a_watcher_hears_a_heartbeat_when_nothing_happens(tmp_path, experiment_of, monkeypatch):
    monkeypatch.setattr(watch, "HEARTBEAT_SECONDS", 0.2)
    folder = RunFolder.create(tmp_path, experiment_of("waiting"), "r")
    with Journal(folder.events) as journal:
        responses = watch.follow(folder, 0, Jobs())
        folder.record_process(ProcessRecord.of(os.getpid(), 0))
        journal.append(state_changed=ev.StateChanged(state=ev.RUN_STATE_RUNNING))
        assert [event.sequence for event in (await anext(responses)).events] == [1]
        for _ in range(2):
            assert await anext(responses) == run_pb2.WatchRunResponse(last_sequence=1)
        journal.append(state_changed=ev.StateChanged(state=ev.RUN_STATE_SUCCEEDED))
        assert [event.sequence async for response in responses for event in response.events] == [2]


async def test_a_watcher_is_told_when_the_folder_is_gone(tmp_path, experiment_of):
    folder = RunFolder.create(tmp_path, experiment_of("waiting"), "r")
    with Journal(folder.events) as journal:
        journal.append(state_changed=ev.StateChanged(state=ev.RUN_STATE_RUNNING))
        folder.record_process(ProcessRecord.of(os.getpid(), 0))
        responses = watch.follow(folder, 0, Jobs())
        await anext(responses)
    shutil.rmtree(folder.path)
    with pytest.raises(UserError, match="is gone") as caught:
        await anext(responses)
    assert caught.value.reason == "RUN_NOT_FOUND"


@pytest.fixture
def straight(tmp_path, experiment_of, monkeypatch) -> bytes:
    """What the counting recipe makes when nothing interrupts it."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "injected")
    from recipes_for_tests import run as recipe

    folder = RunFolder.create(tmp_path / "straight", experiment_of("counting", batch_tokens=1), "r")
    with Journal(folder.events) as journal:
        recipe(RunContext(folder, journal))
    return (folder.artifacts / "walk.safetensors").read_bytes()


@pytest.mark.slow
def test_stopped_killed_and_resumed_the_result_is_the_same_to_the_last_bit(worker, experiment_of, until, straight):
    run = worker.start(experiment_of("counting", batch_tokens=5))
    until(lambda: worker.get(run).last_sequence > 8)
    worker.cancel(run, run_pb2.CANCEL_MODE_GRACEFUL, "lunch")
    worker.cancel(run, run_pb2.CANCEL_MODE_GRACEFUL, "a second time changes nothing")
    stopped = worker.wait(run)
    assert (stopped.state, stopped.resumable, stopped.pid) == (ev.RUN_STATE_CANCELLED, True, 0)
    assert worker.events(run)[-1].state_changed.message.endswith("lunch")
    assert find_run(worker.runs_folder, run.run_id).process.exit_code == 75

    assert worker.resume(run).state in (ev.RUN_STATE_QUEUED, ev.RUN_STATE_RUNNING)
    assert _code(lambda: worker.resume(run)) == grpc.StatusCode.FAILED_PRECONDITION
    until(lambda: worker.get(run).last_sequence > stopped.last_sequence + 8)
    os.kill(worker.get(run).pid, signal.SIGKILL)
    assert worker.wait(run).failure.reason == "PROCESS_VANISHED"

    worker.resume(run)
    assert worker.wait(run).state == ev.RUN_STATE_SUCCEEDED
    assert (Path(worker.runs_folder) / run.run_id / "artifacts" / "walk.safetensors").read_bytes() == straight
    events = worker.events(run)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert _code(lambda: worker.resume(run)) == grpc.StatusCode.FAILED_PRECONDITION
    # Cancelling what has ended is no error.
    assert worker.cancel(run, run_pb2.CANCEL_MODE_IMMEDIATE).state == ev.RUN_STATE_SUCCEEDED


@pytest.mark.parametrize("model", ["deaf", "stubborn", "forking"])
def test_immediate_cancel_leaves_nothing_behind(worker, experiment_of, until, model):
    run = worker.start(experiment_of(model))
    until(lambda: worker.get(run).last_sequence >= 2)
    worker.cancel(run, run_pb2.CANCEL_MODE_IMMEDIATE, "now")
    assert worker.wait(run).state == ev.RUN_STATE_CANCELLED
    events = worker.events(run)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].state_changed.state == ev.RUN_STATE_CANCELLED
    children = [event.log.text.split()[1] for event in events if event.log.text.startswith("child ")]
    assert len(children) == (model == "forking")
    assert [start_time(int(pid)) for pid in [run.pid, *children]] == [None] * (1 + len(children))


def test_a_killed_run_is_reported_with_its_reason_and_log(worker, experiment_of, until):
    run = worker.start(experiment_of("forking"))
    until(lambda: worker.get(run).last_sequence >= 5)
    os.kill(run.pid, signal.SIGKILL)
    ended = worker.wait(run)
    assert (ended.state, ended.failure.reason) == (ev.RUN_STATE_FAILED, "PROCESS_VANISHED")
    assert "SIGKILL" in ended.failure.message
    assert any(line.startswith("child ") for line in ended.log_tail)
    assert ended.resumable
    # Its forked child held the folder's lock; were it alive, nothing could go on.
    assert worker.resume(run).pid != run.pid
    worker.cancel(run, run_pb2.CANCEL_MODE_GRACEFUL)
    assert worker.wait(run).state == ev.RUN_STATE_CANCELLED


def test_a_killed_worker_takes_no_run_with_it(start_worker, experiment_of, until):
    first = start_worker("--owned")
    run = first.start(experiment_of("waiting"))
    seen = _sequences([next(first.watch(run))])
    first.process.kill()
    first.process.wait()

    second = start_worker("--owned")
    assert second.get(run).state == ev.RUN_STATE_RUNNING
    assert second.get(run).pid == run.pid
    assert _code(lambda: second.resume(run)) == grpc.StatusCode.FAILED_PRECONDITION
    stream = second.watch(run, after_sequence=seen[-1])
    assert next(stream).events[0].sequence == seen[-1] + 1
    second.cancel(run, run_pb2.CANCEL_MODE_GRACEFUL)
    rest = _sequences(stream)
    assert second.get(run).state == ev.RUN_STATE_CANCELLED
    assert rest[-1] == second.get(run).last_sequence

    # Of a run that another worker began and that is killed, the new worker writes the end itself.
    second.resume(run)
    third = start_worker("--owned")
    second.process.kill()
    second.process.wait()
    third.cancel(run, run_pb2.CANCEL_MODE_IMMEDIATE, "now")
    assert third.wait(run).state == ev.RUN_STATE_CANCELLED
    until(lambda: third.events(run)[-1].state_changed.state == ev.RUN_STATE_CANCELLED)


def test_a_folder_that_is_held_is_left_alone(worker, experiment_of):
    run = worker.start(experiment_of("no-text"))
    ended = worker.wait(run)
    with find_run(worker.runs_folder, run.run_id).lock():
        assert _code(lambda: worker.resume(run)) == grpc.StatusCode.FAILED_PRECONDITION
    assert worker.get(run) == ended


def test_a_job_that_ends_before_it_takes_its_folder_is_reported(start_worker, experiment_of):
    broken = start_worker(environment={"TEST_JOB_EXITS": "7"})
    run = broken.wait(broken.start(experiment_of("no-text")))
    assert (run.state, run.failure.message) == (ev.RUN_STATE_FAILED, "The process vanished (exit code 7).")
    assert list(run.log_tail) == ["the job cannot start"]
    # The folder is whole: a worker whose jobs start goes on with it.
    worker = start_worker()
    worker.resume(run)
    failed = worker.wait(run)
    assert failed.failure.reason == "NO_TEXT"
    # And what a resumed job did not live to say is not covered by what an earlier one said.
    broken.resume(run)
    assert broken.wait(run).failure.reason == "PROCESS_VANISHED"


def test_lists_are_paged_newest_first(worker, experiment_of):
    runs = [worker.start(experiment_of("no-text")) for _ in range(5)]
    for run in runs:
        worker.wait(run)
    listed: list[str] = []
    token = ""
    while True:
        request = run_pb2.ListRunsRequest(runs_folder=worker.runs_folder, page_size=2, page_token=token)
        page = worker.runs.ListRuns(request, timeout=10)
        listed += [run.run_id for run in page.runs]
        assert len(page.runs) <= 2
        if not (token := page.next_page_token):
            break
    assert listed == [run.run_id for run in reversed(runs)]
    empty = run_pb2.ListRunsRequest(runs_folder=worker.runs_folder + "/absent")
    assert not worker.runs.ListRuns(empty, timeout=10).runs
