"""Entry of every job process: ``python -m qscope.execute RUN_FOLDER``.

``python -m qscope.execute -`` is a spare: it imports the heavy libraries at once, reads the run folder from standard
input meanwhile, and leaves when that ends without one.

A run of several processes has one of these in front, which holds the folder and starts the others: ranks, whose
environment names their place (:class:`qscope.runs.Seat`). Rank 0 writes the journal while it lives.

The signals are taken over before anything heavy is imported, so that a stop that comes early is not lost: SIGTERM and
SIGUSR2 (a scheduler's warning) ask the recipe to write a checkpoint and leave, a second SIGTERM leaves at once, SIGINT
(a terminal's Ctrl-C reaches the whole group) is left to the command line.

Exit codes: 0 done, 1 the run failed, 65 the experiment is invalid, 70 a bug of ours, 75 stopped with a checkpoint (run
it again), 143 stopped at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from qscope.processes import StopRequest, die_with

if TYPE_CHECKING:
    from qscope.runs import Journal, RunContext, RunFolder, Seat
    from qscope.v1.run_event_pb2 import StateChanged

EXIT_OK, EXIT_FAILED, EXIT_INVALID, EXIT_BUG, EXIT_STOPPED = 0, 1, 65, 70, 75
EXIT_USAGE = 2


def main(folder: str, recipes: dict[str, str] | None = None, imports: threading.Thread | None = None) -> int:
    """Runs the experiment frozen in `folder` and returns the exit code.

    Args:
        folder: a run folder; a run that ended before goes on from its newest checkpoint.
        recipes: task name of the experiment to ``module:function``; left out, the program's own table.
        imports: a thread that is importing libraries; nothing else is imported while it works, and a stop does not
            wait for it.
    """
    stop = StopRequest()
    stop.install()
    stop.guard(float(os.environ.get("QSCOPE_STOP_SECONDS", "120")))
    # Only now: the imports take long enough for a stop to arrive.
    from qscope.errors import UserError
    from qscope.runs import Journal, ProcessRecord, RunFolder, Seat, derive_state
    from qscope.v1.run_event_pb2 import RUN_STATE_RUNNING, RUN_STATE_SUCCEEDED, StateChanged

    try:
        run = RunFolder(folder)
        if (seat := Seat.of(os.environ)) is not None:
            return _be_rank(run, seat, stop, recipes)
        with run.lock():
            if derive_state(run).state == RUN_STATE_SUCCEEDED:
                raise UserError(f"The run {run.run_id} has already succeeded.", remedy="Start a new run.")
            with Journal(run.events) as journal:
                run.record_process(ProcessRecord.of(os.getpid(), journal.last_sequence))
                message = "started" if journal.last_sequence == 0 else "resumed"
                journal.append(state_changed=StateChanged(state=RUN_STATE_RUNNING, message=message))
                while imports is not None and imports.is_alive() and not stop.requested:
                    imports.join(0.05)
                ending, code = _attempt(run, journal, stop, recipes)
                if ending.HasField("failure"):
                    failure = ending.failure
                    print(f"{failure.traceback}{failure.message} {failure.remedy}", file=sys.stderr, flush=True)
                journal.append(state_changed=ending)
                return code
    except UserError as error:
        print(f"qscope: {error}", file=sys.stderr, flush=True)
        return EXIT_FAILED


def _be_rank(run: RunFolder, seat: Seat, stop: StopRequest, recipes: dict[str, str] | None) -> int:
    """Runs one rank of a run whose folder the process before it holds, and leaves word of its end; its exit code."""
    from qscope.runs import Journal
    from qscope.runs.supervisor import write_outcome

    die_with(seat.parent)
    with Journal(run.events) if seat.rank == 0 else contextlib.nullcontext() as journal:
        ending, code = _attempt(run, journal, stop, recipes, seat)
    if seat.rank and ending.HasField("failure"):
        # Of rank 0 the process before it says so, in the same log.
        print(f"{ending.failure.traceback}{ending.failure.message}", file=sys.stderr, flush=True)
    write_outcome(seat, ending, code)
    return code


def _attempt(
    run: RunFolder,
    journal: Journal | None,
    stop: StopRequest,
    recipes: dict[str, str] | None,
    seat: Seat | None = None,
) -> tuple[StateChanged, int]:
    """Runs the recipe, or the ranks that do; returns the terminal event and the exit code."""
    from qscope.runs import RunContext, RunStopped, violations
    from qscope.runs.supervisor import GRACE_SECONDS, run_ranks
    from qscope.v1.run_event_pb2 import (
        RUN_STATE_CANCELLED,
        RUN_STATE_FAILED,
        RUN_STATE_PREEMPTED,
        RUN_STATE_SUCCEEDED,
        Failure,
        StateChanged,
    )

    def failed(code: int, **failure: str) -> tuple[StateChanged, int]:
        return StateChanged(state=RUN_STATE_FAILED, message="failed", failure=Failure(**failure)), code

    def stopped(message: str) -> tuple[StateChanged, int]:
        request = run.cancel_request()
        state = RUN_STATE_CANCELLED if request else RUN_STATE_PREEMPTED
        reason = f": {request.reason}" if request and request.reason else ""
        return StateChanged(state=state, message=message + reason), EXIT_STOPPED

    try:
        # Ranks leave together: one that has been asked meets the others first.
        if stop.requested and seat is None:
            return stopped("stopped before the first step")
        experiment = run.experiment
        for field, text in violations(experiment):
            return failed(
                EXIT_INVALID,
                message=f"{field or 'The experiment'}: {text}.",
                remedy="`qscope config check` shows every fault with its line.",
                reason="EXPERIMENT_INVALID",
                field=field,
            )
        compute = experiment.compute
        if seat is None and compute.processes > 1:
            command = [sys.executable, "-P", "-m", "qscope.execute", str(run.path)]
            stop.allow(2 * GRACE_SECONDS)
            with journal.lent():
                return run_ranks(
                    run, compute.processes, compute.threads, command, lambda: stop.requested, {EXIT_OK, EXIT_STOPPED}
                )
        if seat is None:
            _use_threads(compute.threads)
        recipe = _find_recipe(experiment.WhichOneof("task"), recipes)
        context = _seated(run, journal, stop, seat) if seat else RunContext(run, journal, lambda: stop.requested)
        try:
            recipe(context)
        finally:
            context.close()
        return StateChanged(state=RUN_STATE_SUCCEEDED, message="done"), EXIT_OK
    except RunStopped as stopping:
        return stopped(f"stopped after step {stopping.step}")
    except BaseException as error:
        code, failure = _explain(error)
        return failed(code, **failure)


def _seated(run: RunFolder, journal: Journal | None, stop: StopRequest, seat: Seat) -> RunContext:
    """The context of one rank, once all are there and each has its device."""
    from qscope.models.device import take_device
    from qscope.runs import FollowerContext, RunContext

    device = take_device(run.experiment.compute.device, seat.rank, seat.count)
    ranks = seat.join(device.type)
    if journal is None:
        return FollowerContext(run, lambda: stop.requested, ranks, seat.folder / f"artifacts-{seat.rank}")
    return RunContext(run, journal, lambda: stop.requested, ranks)


def _explain(error: BaseException) -> tuple[int, dict[str, str]]:
    """Exit code and fields of `Failure` for what a recipe raised."""
    import errno
    import traceback

    from qscope.errors import UserError

    if isinstance(error, UserError):
        parts = {"message": error.message, "remedy": error.remedy, "reason": error.reason, "field": error.field}
        return EXIT_INVALID if error.field else EXIT_FAILED, parts
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)) or _is_cpu_memory(error):
        where = "GPU" if torch and isinstance(error, torch.OutOfMemoryError) else "machine"
        return EXIT_FAILED, {
            "message": f"The {where} ran out of memory.",
            "remedy": "`qscope plan` shows what needs it; make the batch, the buffer or d_sae smaller, then resume.",
            "reason": "OUT_OF_MEMORY",
            "traceback": traceback.format_exc(),
        }
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return EXIT_FAILED, {
            "message": "The disk of the run folder is full, or a limit for its files is reached.",
            "remedy": "Make room, then resume the run.",
            "reason": "DISK_FULL",
        }
    return EXIT_BUG, {
        "message": f"{type(error).__name__}: {error}",
        "remedy": "This is a bug of qscope; please report it with the traceback.",
        "reason": "INTERNAL",
        "traceback": traceback.format_exc(),
    }


def _is_cpu_memory(error: BaseException) -> bool:
    # torch's CPU allocator has no exception type of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _find_recipe(task: str | None, recipes: dict[str, str] | None) -> Callable[[RunContext], None]:
    import importlib

    if recipes is None:
        from qscope.recipes import RECIPES as recipes
    module, _, function = recipes[task or ""].partition(":")
    return getattr(importlib.import_module(module), function)


def _use_threads(threads: int) -> None:
    """Gives the arithmetic `threads` CPU threads; 0 leaves torch's own choice, one for each core."""
    if threads == 0:
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def _main_as_spare() -> int:
    """Waits for a run folder on standard input, importing meanwhile what every run needs, and runs it."""
    # All that `main` needs until it has said that the run is started: two threads that import modules which import
    # each other may see them half done.
    import qscope.runs  # noqa: F401

    imports = threading.Thread(target=_import_libraries, name="imports", daemon=True)
    imports.start()
    folder = os.fsdecode(sys.stdin.buffer.read())
    if not folder:
        return EXIT_OK
    _take_standard_streams(folder)
    return main(folder, imports=imports)


def _import_libraries() -> None:
    import contextlib
    import gc
    import importlib

    # Nothing that an import makes is garbage; looking for it takes a sixth of the time.
    gc.disable()
    try:
        for name in ("torch", "transformers.modeling_utils", "qscope.recipes.plan", "qscope.sae.kernels.cpu"):
            # What fails here fails again where it is needed, and is explained there.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _take_standard_streams(folder: str) -> None:
    """Turns standard output and error to the run's log, as a job started for one run has them."""
    log = os.open(os.path.join(folder, "run.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m qscope.execute RUN_FOLDER", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)
    code = _main_as_spare() if sys.argv[1] == "-" else main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of libraries (data loaders, kernels' pools) must not keep a finished run from ending.
    os._exit(code)
