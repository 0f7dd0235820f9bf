"""WorkerService: who the worker is, and its end."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

import qscope
from qscope.v1 import worker_pb2
from qscope.worker import PROTOCOL_VERSION
from qscope.worker.jobs import Jobs


class WorkerService:
    """The methods of ``qscope.v1.WorkerService``.

    Args:
        jobs: the worker's jobs.
        shutdown: begins the worker's end; True also stops detached runs.
    """

    def __init__(self, jobs: Jobs, shutdown: Callable[[bool], None]) -> None:
        self._jobs = jobs
        self._shutdown = shutdown
        self._began = time.monotonic()
        self._torch_version = ""
        self._imports: threading.Thread | None = None
        self._devices = [f"cpu ({len(os.sched_getaffinity(0))} cores)"]

    def import_torch(self) -> None:
        """Imports torch in the background, once; until then GetWorkerInfo names neither its version nor the GPUs."""
        if self._imports is not None:
            return

        def look() -> None:
            import torch

            gpus = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
            self._devices.extend(gpus)
            self._torch_version = torch.__version__

        self._imports = threading.Thread(target=look, name="import-torch", daemon=True)
        self._imports.start()

    async def get_worker_info(
        self, request: worker_pb2.GetWorkerInfoRequest, context: Any
    ) -> worker_pb2.GetWorkerInfoResponse:
        return worker_pb2.GetWorkerInfoResponse(
            protocol_version=PROTOCOL_VERSION,
            package_version=qscope.__version__,
            pid=os.getpid(),
            python_version=platform.python_version(),
            torch_version=self._torch_version,
            devices=self._devices,
            active_runs=[job.folder.run_id for job in self._jobs.active],
            uptime_seconds=time.monotonic() - self._began,
        )

    async def shutdown(self, request: worker_pb2.ShutdownRequest, context: Any) -> worker_pb2.ShutdownResponse:
        self._shutdown(request.cancel_detached)
        return worker_pb2.ShutdownResponse()
