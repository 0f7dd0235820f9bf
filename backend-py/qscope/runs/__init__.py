"""The run folder and everything in it: journal, checkpoints, artifacts, states. Imports no torch until it must."""

from qscope.runs.checkpoints import Checkpoint, Checkpoints
from qscope.runs.context import RunContext, RunStopped, seed_of
from qscope.runs.folder import CancelRequest, RunFolder
from qscope.runs.follower import FollowerContext
from qscope.runs.journal import Journal, JournalReader, tail
from qscope.runs.process import ProcessRecord
from qscope.runs.ranks import Ranks, Seat
from qscope.runs.states import derive_state, find_run, list_runs, run_folders
from qscope.runs.violations import violations

__all__ = [
    "CancelRequest",
    "Checkpoint",
    "Checkpoints",
    "FollowerContext",
    "Journal",
    "JournalReader",
    "ProcessRecord",
    "Ranks",
    "RunContext",
    "RunFolder",
    "RunStopped",
    "Seat",
    "derive_state",
    "find_run",
    "list_runs",
    "run_folders",
    "seed_of",
    "tail",
    "violations",
]
