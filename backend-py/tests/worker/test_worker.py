"""The worker process: how it starts, what it answers, how it leaves."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

import qscope
from qscope.runs import derive_state, find_run
from qscope.v1 import run_event_pb2 as ev
from qscope.v1 import run_pb2, worker_pb2
from qscope.v1.experiment_pb2 import Experiment


def _refused(call) -> tuple[grpc.StatusCode, list[str], ErrorInfo]:
    """Code, field paths and info of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    bad_request, info = BadRequest(), ErrorInfo()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    for detail in status.details:
        detail.Unpack(bad_request) or detail.Unpack(info)
    return caught.value.code(), [violation.field for violation in bad_request.field_violations], info


def test_ready_line_socket_and_info(worker):
    assert worker.ready == {
        "address": f"unix:{worker.socket}",
        "pid": worker.process.pid,
        "protocol_version": "1.0",
        "version": qscope.__version__,
    }
    assert stat.S_IMODE(worker.socket.stat().st_mode) == 0o600
    info = worker.worker.GetWorkerInfo(worker_pb2.GetWorkerInfoRequest(), timeout=10)
    assert (info.protocol_version, info.pid) == ("1.0", worker.process.pid)
    assert info.devices[0].startswith("cpu (")


def test_version_needs_no_heavy_import():
    code = (
        "import sys, runpy; sys.argv[1:] = ['--version']\ntry: runpy.run_module('qscope.worker', run_name='__main__')\n"
    )
    code += "except SystemExit as e: assert not e.code; assert not {'torch', 'grpc'} & sys.modules.keys()"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.stdout == f"qscope {qscope.__version__} (protocol 1.0)\n", child.stderr


def test_health_and_reflection(start_worker):
    worker = start_worker("--reflection")
    health = health_pb2_grpc.HealthStub(worker.channel)
    for service in ("", "qscope.v1.RunService", "qscope.v1.WorkerService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(worker.channel).get_services()
    assert {"qscope.v1.RunService", "qscope.v1.WorkerService", "grpc.health.v1.Health"} <= set(services)


@pytest.mark.parametrize("problem", ["open folder", "long path", "in use"])
def test_a_socket_that_cannot_be_used_is_refused(worker, tmp_path, problem):
    path = worker.socket
    if problem == "open folder":
        tmp_path.chmod(0o755)
        path = tmp_path / "w.sock"
    elif problem == "long path":
        path = tmp_path / ("x" * 120) / "w.sock"
    command = [sys.executable, "-m", "qscope.worker", "--socket", str(path)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert child.stderr.startswith("qscope worker: ")
    assert "Traceback" not in child.stderr
    assert worker.worker.GetWorkerInfo(worker_pb2.GetWorkerInfoRequest(), timeout=10).pid == worker.process.pid


def test_the_socket_of_a_killed_worker_is_taken_over(start_worker):
    first = start_worker()
    first.process.kill()
    first.process.wait()
    assert first.socket.exists()
    child = subprocess.Popen(
        [sys.executable, "-m", "qscope.worker", "--socket", str(first.socket), "--owned"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert child.wait(20) == 0, "stdin is at its end at once"
    assert not first.socket.exists()


def test_requests_that_break_the_rules_name_every_field(worker, experiment_of):
    experiment = experiment_of("done")
    experiment.train_sae.formats.append(0)
    experiment.train_sae.optimizer.warmup_share = 7
    request = run_pb2.StartRunRequest(request_id="x", experiment=experiment, runs_folder=worker.runs_folder)
    code, fields, info = _refused(lambda: worker.runs.StartRun(request, timeout=10))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(fields) >= {
        "request_id",
        "experiment.train_sae.formats[1]",
        "experiment.train_sae.optimizer.warmup_share",
    }
    assert (info.domain, info.reason) == ("qscope", "INVALID_REQUEST")


def test_very_many_violations_still_fit_into_a_status(worker, experiment_of):
    experiment = experiment_of("done")
    experiment.train_sae.formats.extend([0] * 5000)
    request = run_pb2.ValidateExperimentRequest(experiment=experiment, runs_folder=worker.runs_folder)
    code, fields, _ = _refused(lambda: worker.runs.ValidateExperiment(request, timeout=10))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert len(fields) > 10


def test_refusals_are_data(worker):
    folder = {"runs_folder": worker.runs_folder}
    cases = [
        (worker.runs.GetRun, run_pb2.GetRunRequest(run_id="no", **folder), "NOT_FOUND", ["run_id"], "RUN_NOT_FOUND"),
        (
            worker.runs.ListRuns,
            run_pb2.ListRunsRequest(runs_folder="relative"),
            "INVALID_ARGUMENT",
            ["runs_folder"],
            "RUNS_FOLDER_UNUSABLE",
        ),
        (
            worker.runs.CancelRun,
            run_pb2.CancelRunRequest(run_id="no", **folder),
            "INVALID_ARGUMENT",
            ["mode"],
            "INVALID_REQUEST",
        ),
    ]
    for method, request, code, fields, reason in cases:
        found_code, found_fields, info = _refused(lambda method=method, request=request: method(request, timeout=10))
        assert (found_code.name, found_fields, info.reason) == (code, fields, reason)


def test_our_own_bugs_are_internal_and_logged_once(worker, experiment_of):
    run = worker.start(experiment_of("no-text"))
    worker.wait(run)
    # A folder where a file belongs: nobody's input, so it must not be taken for a user's error.
    record = find_run(worker.runs_folder, run.run_id).path / "process.json"
    record.unlink()
    record.mkdir()
    request = run_pb2.GetRunRequest(run_id=run.run_id, runs_folder=worker.runs_folder)
    code, _, info = _refused(lambda: worker.runs.GetRun(request, timeout=10))
    record.rmdir()
    assert (code, info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert (worker.socket.parent / "worker.log").read_text().count("a call failed") == 1


def test_a_plan_that_is_impossible_names_the_field(worker, experiment_of):
    experiment: Experiment = experiment_of("/nowhere/model")
    request = run_pb2.ValidateExperimentRequest(experiment=experiment, runs_folder=worker.runs_folder)
    code, fields, info = _refused(lambda: worker.runs.ValidateExperiment(request, timeout=60))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert all(field.startswith("experiment.") for field in fields)
    assert info.metadata["remedy"]


@pytest.mark.parametrize("end", ["end of stdin", "SIGTERM", "Shutdown"])
def test_an_owned_worker_leaves_with_its_own_runs_only(start_worker, experiment_of, until, end):
    worker = start_worker("--owned")
    attached, detached = worker.start(experiment_of("waiting")), worker.start(experiment_of("waiting"), detach=True)
    info = worker.worker.GetWorkerInfo(worker_pb2.GetWorkerInfoRequest(), timeout=10)
    assert set(info.active_runs) == {attached.run_id, detached.run_id}
    worker.process.send_signal(signal.SIGINT)
    worker.process.send_signal(signal.SIGHUP)
    if end == "end of stdin":
        worker.process.stdin.close()
    elif end == "SIGTERM":
        worker.process.send_signal(signal.SIGTERM)
    else:
        worker.worker.Shutdown(worker_pb2.ShutdownRequest(), timeout=10)
    assert worker.process.wait(30) == 0
    assert not worker.socket.exists()
    states = {id: derive_state(find_run(worker.runs_folder, id)) for id in (attached.run_id, detached.run_id)}
    assert states[attached.run_id].state == ev.RUN_STATE_CANCELLED
    assert states[detached.run_id].state == ev.RUN_STATE_RUNNING
    os.kill(detached.pid, 0)


def test_shutdown_can_take_the_detached_runs_along(start_worker, experiment_of):
    worker = start_worker()
    run = worker.start(experiment_of("waiting"), detach=True)
    worker.worker.Shutdown(worker_pb2.ShutdownRequest(cancel_detached=True), timeout=10)
    assert worker.process.wait(30) == 0
    assert derive_state(find_run(worker.runs_folder, run.run_id)).state == ev.RUN_STATE_CANCELLED


def test_a_worker_without_an_owner_stays_when_stdin_ends(start_worker):
    worker = start_worker()
    worker.process.stdin.close()
    info = worker.worker.GetWorkerInfo(worker_pb2.GetWorkerInfoRequest(), timeout=10)
    assert info.pid == worker.process.pid
