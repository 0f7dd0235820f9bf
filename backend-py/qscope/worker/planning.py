"""Planning in a process of its own: a plan imports torch, asks the device for its memory and may take seconds.

``python -m qscope.worker.planning`` reads a ValidateExperimentRequest from standard input and writes a Plan, or with
exit code 65 the Failure that the user can mend.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from qscope.errors import UserError
from qscope.v1.run_event_pb2 import Failure
from qscope.v1.run_pb2 import Plan, ValidateExperimentRequest

log = logging.getLogger(__name__)

_EXIT_INVALID = 65


async def plan_in_subprocess(request: ValidateExperimentRequest) -> Plan:
    """The plan of `request`; cancelling the call ends the process.

    Raises:
        UserError: what the plan found impossible; `field` starts with "experiment.".
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "qscope.worker.planning",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = await process.communicate(request.SerializeToString())
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    if process.returncode == _EXIT_INVALID:
        failure = Failure.FromString(output)
        raise UserError(
            failure.message,
            remedy=failure.remedy,
            reason=failure.reason,
            field=f"experiment.{failure.field}" if failure.field else "",
        )
    if process.returncode != 0:
        text = errors.decode(errors="replace").strip()
        log.error("planning ended with %d:\n%s", process.returncode, text)
        raise RuntimeError(f"planning ended with {process.returncode}: {text.rpartition(chr(10))[2]}")
    return Plan.FromString(output)


def _main() -> int:
    # Libraries print to standard output; the answer must stand there alone.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = ValidateExperimentRequest.FromString(sys.stdin.buffer.read())
    from qscope.recipes.plan import plan

    with answer:
        try:
            answer.write(plan(request.experiment, request.runs_folder).SerializeToString())
            return 0
        except UserError as error:
            failure = Failure(message=error.message, remedy=error.remedy, reason=error.reason, field=error.field)
            answer.write(failure.SerializeToString())
            return _EXIT_INVALID


if __name__ == "__main__":
    sys.exit(_main())
