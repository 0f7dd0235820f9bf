"""The life of a worker: bind, say so, serve, and leave with its runs in order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import qscope
from qscope.errors import UserError
from qscope.v1 import inference_pb2, run_pb2, worker_pb2
from qscope.worker import PROTOCOL_VERSION
from qscope.worker.boundary import Boundary
from qscope.worker.handler import service_handler
from qscope.worker.inference_service import InferenceService, ModelThread
from qscope.worker.jobs import Jobs
from qscope.worker.run_service import RunService
from qscope.worker.spare import Spare
from qscope.worker.worker_service import WorkerService

log = logging.getLogger(__name__)

_MESSAGE_BYTES = 64 * 1024 * 1024
_MAX_SOCKET_PATH = 107
#: Commands that only look at a folder are over by then, and do not pay for the import.
_IMPORT_AFTER_SECONDS = 3.0
_SERVICES = {
    "inference": inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
    "runs": run_pb2.DESCRIPTOR.services_by_name["RunService"],
    "worker": worker_pb2.DESCRIPTOR.services_by_name["WorkerService"],
}


async def serve(path: Path, ready_fd: int | None, owned: bool, reflection: bool, spare: Spare) -> None:
    """Serves on the Unix socket `path` until told to end (SIGTERM, Shutdown, or for an owned worker end of stdin).

    Args:
        ready_fd: gets one line of JSON once calls are answered, and is closed.
        owned: ends, and stops the runs begun without detach, when standard input does.
        reflection: also serves the reflection service.
        spare: the job process kept ready for the next run, if one is.

    Raises:
        UserError: the socket cannot be used.
    """
    _prepare_socket(path)
    ending, abort, with_detached = asyncio.Event(), asyncio.Event(), False

    def end(detached_too: bool = False) -> None:
        nonlocal with_detached
        with_detached = with_detached or detached_too
        ending.set()

    def terminate() -> None:
        # A second SIGTERM: the runs have been told to stop, so the worker leaves them to finish alone.
        (abort if ending.is_set() else ending).set()

    jobs, model = Jobs(spare), ModelThread()
    worker_service = WorkerService(jobs, end)
    server = grpc.aio.server(
        interceptors=[Boundary()],
        options=[
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
        ],
    )
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    server.add_generic_rpc_handlers(
        (
            service_handler(_SERVICES["inference"], InferenceService(model)),
            service_handler(_SERVICES["runs"], RunService(jobs)),
            service_handler(_SERVICES["worker"], worker_service),
        )
    )
    if reflection:
        _enable_reflection(server)

    # Only around the bind: the run folders made later would otherwise be closed to their owner.
    umask = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    finally:
        os.umask(umask)
    await server.start()
    for name in ("", *(service.full_name for service in _SERVICES.values())):
        await health_service.set(name, health_pb2.HealthCheckResponse.SERVING)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, terminate)
    # The command line decides what Ctrl-C and a closed terminal mean.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if owned:
        _on_end_of_stdin(lambda: loop.call_soon_threadsafe(end))

    def import_when_idle() -> None:
        # A run that is just starting needs the cores for its own imports.
        if not (jobs.active or jobs.stopping or model.busy):
            worker_service.import_torch()
            spare.renew()
        loop.call_later(_IMPORT_AFTER_SECONDS, import_when_idle)

    loop.call_later(_IMPORT_AFTER_SECONDS, import_when_idle)
    _say_ready(path, ready_fd)
    log.info("serving on %s", path)

    await ending.wait()
    log.info("ending")
    await health_service.enter_graceful_shutdown()
    await jobs.drain(with_detached=with_detached, reason="the worker ended", abort=abort)
    await server.stop(grace=1.0)
    path.unlink(missing_ok=True)


def _prepare_socket(path: Path) -> None:
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise UserError(
            f"The socket path {path} is longer than {_MAX_SOCKET_PATH} bytes, the system's limit.",
            remedy="Use a shorter folder, for example under $XDG_RUNTIME_DIR.",
            reason="SOCKET_PATH_TOO_LONG",
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.parent.stat()
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
        raise UserError(
            f"The folder {path.parent} of the socket is open to other users.",
            remedy=f"Use a folder of your own: chmod 700 {path.parent}",
            reason="SOCKET_FOLDER_OPEN",
        )
    if path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                # Left behind by a worker that was killed.
                path.unlink()
            else:
                raise UserError(
                    f"Another worker serves on {path}.",
                    remedy="Use it, or stop it with `qscope worker stop`.",
                    reason="SOCKET_IN_USE",
                )


def _enable_reflection(server: grpc.aio.Server) -> None:
    from grpc_reflection.v1alpha import reflection

    names = [service.full_name for service in _SERVICES.values()]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)


def _on_end_of_stdin(callback: Callable[[], object]) -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        callback()

    # A thread rather than the event loop: standard input may also be a file or /dev/null, which epoll refuses.
    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _say_ready(path: Path, ready_fd: int | None) -> None:
    if ready_fd is None:
        return
    line = {
        "address": f"unix:{path}",
        "pid": os.getpid(),
        "protocol_version": PROTOCOL_VERSION,
        "version": qscope.__version__,
    }
    with os.fdopen(ready_fd, "w") as file:
        file.write(json.dumps(line) + "\n")
