"""A real worker process on a real socket, and job processes whose recipe is one of `injected/`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from qscope.runs import RunFolder
from qscope.v1 import inference_pb2, run_pb2, worker_pb2
from qscope.v1.experiment_pb2 import Experiment

_HERE = Path(__file__).parent
# The package of this checkout, also where several share one environment.
_PATH = os.pathsep.join([str(_HERE / "injected"), str(_HERE.parents[1])])
ENVIRONMENT = {**os.environ, "PYTHONPATH": _PATH, "OMP_NUM_THREADS": "1"}


def client(channel: grpc.Channel, service: Any) -> SimpleNamespace:
    """One callable per method of a service descriptor."""
    methods = {}
    for method in service.methods:
        kind = channel.unary_stream if method.server_streaming else channel.unary_unary
        methods[method.name] = kind(
            f"/{service.full_name}/{method.name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
    return SimpleNamespace(**methods)


@dataclass
class Worker:
    """A running worker.

    Attributes:
        ready: the line it wrote when it was ready.
    """

    process: subprocess.Popen[bytes]
    socket: Path
    ready: dict[str, Any]
    channel: grpc.Channel
    runs_folder: str

    def __post_init__(self) -> None:
        self.runs = client(self.channel, run_pb2.DESCRIPTOR.services_by_name["RunService"])
        self.inference = client(self.channel, inference_pb2.DESCRIPTOR.services_by_name["InferenceService"])
        self.worker = client(self.channel, worker_pb2.DESCRIPTOR.services_by_name["WorkerService"])

    @property
    def rss(self) -> int:
        """Resident memory in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """CPU time used so far, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def start(self, experiment: Experiment, **more: Any) -> run_pb2.Run:
        request = {"request_id": str(uuid.uuid4()), "experiment": experiment, "runs_folder": self.runs_folder, **more}
        return self.runs.StartRun(run_pb2.StartRunRequest(**request), timeout=30).run

    def get(self, run: run_pb2.Run) -> run_pb2.Run:
        return self.runs.GetRun(run_pb2.GetRunRequest(run_id=run.run_id, runs_folder=self.runs_folder), timeout=10).run

    def resume(self, run: run_pb2.Run, **more: Any) -> run_pb2.Run:
        request = run_pb2.ResumeRunRequest(run_id=run.run_id, runs_folder=self.runs_folder, **more)
        return self.runs.ResumeRun(request, timeout=30).run

    def cancel(self, run: run_pb2.Run, mode: int, reason: str = "") -> run_pb2.Run:
        request = run_pb2.CancelRunRequest(run_id=run.run_id, runs_folder=self.runs_folder, mode=mode, reason=reason)
        return self.runs.CancelRun(request, timeout=10).run

    def watch(self, run: run_pb2.Run, after_sequence: int = 0) -> Iterator[run_pb2.WatchRunResponse]:
        request = run_pb2.WatchRunRequest(
            run_id=run.run_id, runs_folder=self.runs_folder, after_sequence=after_sequence
        )
        return self.runs.WatchRun(request, timeout=60)

    def wait(self, run: run_pb2.Run) -> run_pb2.Run:
        """The run after its watch has ended."""
        for _ in self.watch(run):
            pass
        return self.get(run)

    def events(self, run: run_pb2.Run) -> list[Any]:
        return [event for response in self.watch(run) for event in response.events]


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWorker]:
    """``start_worker(*arguments)``: a worker process; what it and its jobs leave running is killed at the end."""
    with _workers(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all tests of a module, for those that leave nothing behind in it."""
    with _workers(tmp_path_factory) as start:
        yield start("--owned")


@contextmanager
def _workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWorker]:
    workers: list[Worker] = []
    runs_folder = tmp_path_factory.mktemp("runs")

    def start(*arguments: str, environment: dict[str, str] | None = None) -> Worker:
        folder = tmp_path_factory.mktemp("w")
        folder.chmod(0o700)
        socket = folder / "w.sock"
        reading, writing = os.pipe()
        with open(folder / "worker.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "qscope.worker", "--socket", socket, "--ready-fd", str(writing), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                start_new_session=True,
                env=ENVIRONMENT | (environment or {}),
            )
        os.close(writing)
        with os.fdopen(reading) as pipe:
            line = pipe.readline()
        assert line, (folder / "worker.log").read_text()
        ready = json.loads(line)
        workers.append(Worker(process, socket, ready, grpc.insecure_channel(ready["address"]), str(runs_folder)))
        return workers[-1]

    try:
        yield start
    finally:
        _end(workers, runs_folder)


def _end(workers: list[Worker], runs_folder: Path) -> None:
    for worker in workers:
        worker.channel.close()
        worker.process.kill()
        worker.process.wait()
        if worker.process.stdin:
            worker.process.stdin.close()
    for path in runs_folder.glob("*-*/run.json"):
        record = RunFolder(path.parent).process
        if record is not None and record.lives:
            os.kill(record.pid, signal.SIGKILL)


@pytest.fixture
def worker(start_worker: StartWorker) -> Worker:
    return start_worker("--owned")


@pytest.fixture
def experiment_of() -> Callable[..., Experiment]:
    """``experiment_of(model, **train_sae)``: a valid experiment that runs one of the tests' recipes."""

    def make(model: str, **train_sae: Any) -> Experiment:
        text = (_HERE.parent / "runs" / "experiment.json").read_text()
        experiment = json_format.Parse(text, Experiment())
        experiment.model = model
        json_format.ParseDict(train_sae, experiment.train_sae)
        return experiment

    return make


@pytest.fixture
def execute() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """``execute(folder)``: a job process without a worker, writing to the folder's log."""
    children: list[subprocess.Popen[bytes]] = []

    def start(folder: RunFolder, start_new_session: bool = False, **environment: str) -> subprocess.Popen[bytes]:
        with open(folder.log, "ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "qscope.execute", str(folder.path)],
                stdout=log,
                stderr=log,
                start_new_session=start_new_session,
                env=ENVIRONMENT | environment,
            )
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()


def _until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@pytest.fixture
def until() -> Callable[..., Any]:
    """``until(condition)``: waits for a condition to hold and returns its value."""
    return _until
