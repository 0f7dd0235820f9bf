"""The run folder and everything in it: journal, checkpoints, artifacts, states. Imports no torch until it must."""

from qscope.runs.checkpoints import Checkpoint, Checkpoints
from qscope.runs.context import RunContext, RunStopped, seed_of
from qscope.runs.folder import CancelRequest, RunFolder
from qscope.runs.journal import Journal, JournalReader, tail
from qscope.runs.process import ProcessRecord
from qscope.runs.states import derive_state, find_run, list_runs, run_folders
from qscope.runs.violations import violations

__all__ = [
    "CancelRequest",
    "Checkpoint",
    "Checkpoints",
    "Journal",
    "JournalReader",
    "ProcessRecord",
    "RunContext",
    "RunFolder",
    "RunStopped",
    "derive_state",
    "find_run",
    "list_runs",
    "run_folders",
    "seed_of",
    "tail",
    "violations",
]
