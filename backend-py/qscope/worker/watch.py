"""Following a journal: everything after a sequence number, then what comes, until the run has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from qscope.errors import UserError
from qscope.runs import JournalReader, RunFolder, derive_state
from qscope.runs.journal import TERMINAL_STATES, is_terminal
from qscope.v1.run_pb2 import WatchRunResponse
from qscope.worker.jobs import Jobs

#: Events of a tenth of a second travel together: a message costs about as much as fifty events in one.
_POLL_SECONDS = 0.1
_STATE_SECONDS = 0.5
HEARTBEAT_SECONDS = 10.0


async def follow(folder: RunFolder, after_sequence: int, jobs: Jobs) -> AsyncIterator[WatchRunResponse]:
    """Yields bursts of events, and a response without events every 10 s of silence; ends when the run has ended.

    Raises:
        UserError: HISTORY_LOST when the journal is shorter than `after_sequence`; RUN_NOT_FOUND when somebody removed
            the folder, which would otherwise look like a run that is yet to begin.
    """
    clock = asyncio.get_running_loop().time
    newest = (await asyncio.to_thread(derive_state, folder)).last_sequence
    if after_sequence > newest:
        raise UserError(
            f"The journal of {folder.run_id} ends at event {newest}, before event {after_sequence}.",
            remedy="Watch it from the start (after_sequence 0).",
            reason="HISTORY_LOST",
        )
    reader = JournalReader(folder.events, after_sequence)
    last_sent, last_state_check = clock(), 0.0
    over = False
    while True:
        if over or clock() - last_state_check >= _STATE_SECONDS:
            if not folder.path.is_dir():
                raise UserError(
                    f"The folder of {folder.run_id} is gone: {folder.path}.",
                    remedy="It was removed or renamed while it was watched; `qscope runs list` shows those there are.",
                    reason="RUN_NOT_FOUND",
                )
            # Asked before reading: what the process wrote last is then read below.
            run = await asyncio.to_thread(derive_state, folder)
            over = run.state in TERMINAL_STATES
            last_state_check = clock()
            if over:
                await jobs.settled(folder)
        events = await asyncio.to_thread(reader.read)
        if events:
            yield WatchRunResponse(events=events, last_sequence=reader.sequence)
            last_sent = clock()
            over = over or is_terminal(events[-1])
            continue
        if over:
            return
        if clock() - last_sent >= HEARTBEAT_SECONDS:
            yield WatchRunResponse(last_sequence=max(reader.sequence, after_sequence))
            last_sent = clock()
        await asyncio.sleep(_POLL_SECONDS)
