"""RunService: runs as resources. Everything a call knows comes from the run folder, so any worker can answer it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from qscope.errors import UserError
from qscope.runs import RunFolder, derive_state, find_run, run_folders
from qscope.v1 import run_pb2
from qscope.v1.run_event_pb2 import RUN_STATE_QUEUED, RUN_STATE_SUCCEEDED
from qscope.worker.jobs import Jobs
from qscope.worker.planning import plan_in_subprocess
from qscope.worker.watch import follow

_LOG_LINES = 20
_PAGE_SIZE = 100
_MODES = {run_pb2.CANCEL_MODE_GRACEFUL: "graceful", run_pb2.CANCEL_MODE_IMMEDIATE: "immediate"}


class RunService:
    """The methods of ``qscope.v1.RunService``."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def start_run(self, request: run_pb2.StartRunRequest, context: Any) -> run_pb2.StartRunResponse:
        folder = await asyncio.to_thread(
            RunFolder.create,
            _runs_folder(request),
            request.experiment,
            request.request_id,
            request.source_yaml,
        )
        if folder.process is None:
            await self._jobs.start(folder, request.detach)
        return run_pb2.StartRunResponse(run=await _state(folder))

    async def get_run(self, request: run_pb2.GetRunRequest, context: Any) -> run_pb2.GetRunResponse:
        return run_pb2.GetRunResponse(run=await _state(await _find(request)))

    async def list_runs(self, request: run_pb2.ListRunsRequest, context: Any) -> run_pb2.ListRunsResponse:
        return await asyncio.to_thread(_page, request)

    async def cancel_run(self, request: run_pb2.CancelRunRequest, context: Any) -> run_pb2.CancelRunResponse:
        folder = await _find(request)
        return run_pb2.CancelRunResponse(run=await self._jobs.cancel(folder, _MODES[request.mode], request.reason))

    async def resume_run(self, request: run_pb2.ResumeRunRequest, context: Any) -> run_pb2.ResumeRunResponse:
        folder = await _find(request)
        run = await _state(folder)
        if run.state == RUN_STATE_SUCCEEDED:
            raise UserError(
                f"The run {run.run_id} has succeeded: nothing is left to do.",
                remedy="Start a new run to do it again.",
                reason="RUN_SUCCEEDED",
            )
        if not run.resumable and not (run.state == RUN_STATE_QUEUED and folder.process is None):
            active = run.failure.reason != "EXPERIMENT_INVALID"
            raise UserError(
                f"The run {run.run_id} still works." if active else f"The experiment of {run.run_id} is invalid.",
                remedy=f"Follow it with `qscope runs watch {run.run_id}`."
                if active
                else "Mend the file and start a new run.",
                reason="RUN_ACTIVE" if active else "EXPERIMENT_UNREADABLE",
            )
        await self._jobs.settled(folder)
        await self._jobs.start(folder, request.detach)
        return run_pb2.ResumeRunResponse(run=await _state(folder))

    async def watch_run(
        self, request: run_pb2.WatchRunRequest, context: Any
    ) -> AsyncIterator[run_pb2.WatchRunResponse]:
        async for response in follow(await _find(request), request.after_sequence, self._jobs):
            yield response

    async def validate_experiment(
        self, request: run_pb2.ValidateExperimentRequest, context: Any
    ) -> run_pb2.ValidateExperimentResponse:
        _runs_folder(request)
        return run_pb2.ValidateExperimentResponse(plan=await plan_in_subprocess(request))


def _runs_folder(request: Any) -> Path:
    path = Path(request.runs_folder)
    if not path.is_absolute():
        raise UserError(
            f'The runs folder "{path}" is not absolute: the worker may stand in another folder than the caller.',
            remedy="Give an absolute path.",
            reason="RUNS_FOLDER_UNUSABLE",
            field="runs_folder",
        )
    return path


async def _find(request: Any) -> RunFolder:
    return await asyncio.to_thread(find_run, _runs_folder(request), request.run_id)


async def _state(folder: RunFolder) -> run_pb2.Run:
    return await asyncio.to_thread(derive_state, folder, _LOG_LINES)


def _page(request: run_pb2.ListRunsRequest) -> run_pb2.ListRunsResponse:
    folders = run_folders(_runs_folder(request))
    if request.page_token:
        # The token is the place of the last run sent: runs that come or go meanwhile shift nothing.
        folders = [folder for folder in folders if _place(folder) < request.page_token]
    size = request.page_size or _PAGE_SIZE
    page, rest = folders[:size], folders[size:]
    return run_pb2.ListRunsResponse(
        runs=[derive_state(folder) for folder in page], next_page_token=_place(page[-1]) if rest else ""
    )


def _place(folder: RunFolder) -> str:
    return f"{folder.info.get('created', '')} {folder.run_id}"
