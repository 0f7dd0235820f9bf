"""The process a grader runs in: ``python -m qscope.posttraining.grader_process FD PARENT MEMORY``, started by the pool.

Messages are JSON, each way one for one. A user's function runs here with all that it may do wrong; what it prints goes
to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from math import isfinite
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from qscope.errors import UserError
from qscope.posttraining.graders import (
    ABSTAINED,
    MEMORY,
    NOT_A_NUMBER,
    NOT_FINITE,
    RAISED,
    Function,
    Grader,
    Response,
    load,
)
from qscope.processes import die_with

_DETAIL = 300


def main(fd: int, parent: int, memory: int) -> None:
    """Loads the graders that the first message names, then answers one request after the other until there is none."""
    # The parent may be killed while a grader hangs.
    die_with(parent)
    os.dup2(2, 1)
    os.set_inheritable(fd, False)
    # A scheduler's warning goes to every process of a job. The run decides when it stops; it closes the channel then.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    channel = Connection(fd)
    setup = json.loads(channel.recv_bytes())
    _limit_memory(memory)
    try:
        functions = [load(Grader(**grader), at=at) for grader, at in zip(setup["graders"], setup["at"], strict=True)]
    except UserError as error:
        refused = {"message": error.message, "remedy": error.remedy, "reason": error.reason, "field": error.field}
        channel.send_bytes(json.dumps({"refused": refused}).encode())
        return
    channel.send_bytes(b'{"ready": true}')
    while True:
        try:
            request = json.loads(channel.recv_bytes())
        except EOFError:
            return
        reply = judged(functions[request["grader"]], Response(**request["response"]))
        channel.send_bytes(json.dumps(reply).encode())


def judged(function: Function, response: Response) -> dict[str, Any]:
    """What a grader says of a response: ``value``, or ``reason`` and ``detail``."""
    try:
        value = function(response)
        if value is None:
            return {"reason": ABSTAINED, "detail": ""}
        # NumPy's and torch's numbers are no float; a text is none though float() reads it.
        number = float(value) if hasattr(value, "__float__") else None
    except MemoryError:
        return {"reason": MEMORY, "detail": ""}
    # SystemExit and math-verify's own limit are no Exception.
    except BaseException as error:
        return {"reason": RAISED, "detail": _told(error)}
    if number is None:
        return {"reason": NOT_A_NUMBER, "detail": f"it gave {type(value).__name__}"}
    if not isfinite(number):
        return {"reason": NOT_FINITE, "detail": f"it gave {number}"}
    return {"value": number}


def _told(error: BaseException) -> str:
    """An exception and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return "".join(traceback.format_exception_only(error)).strip()[:_DETAIL] + where


def _limit_memory(limit: int) -> None:
    """Limits the data of this process to so many bytes beyond what it has: past them, MemoryError. Linux only."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    held = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData:")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + limit, held + limit))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
