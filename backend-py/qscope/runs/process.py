"""Which process works in a run folder, and whether it still lives.

A process id alone proves nothing: ids are reused, and a zombie still answers `kill -0`. The kernel's start time
(field 22 of ``/proc/<pid>/stat``, in clock ticks since boot) makes the pair unique on one machine and boot.
"""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ProcessRecord:
    """Content of a run folder's process.json: the process of the newest attempt and, once reaped, how it ended.

    Attributes:
        pid, start_time, pgid: the job's process; start_time in clock ticks since boot.
        host, kernel: machine name, and boot id plus process namespace, in which the ids mean something.
        journal_sequence: newest event in the journal when the process began.
        oom_kills: the control group's count of out-of-memory kills at that time; -1 when unknown.
        exit_code: exit status, negative for a signal; None while it runs or when nobody reaped it.
        oom_killed: the count of kills rose while it ran.
    """

    pid: int
    start_time: int
    pgid: int
    host: str
    kernel: str
    journal_sequence: int = 0
    oom_kills: int = -1
    exit_code: int | None = None
    oom_killed: bool = False

    @classmethod
    def of(cls, pid: int, journal_sequence: int) -> ProcessRecord:
        """The record of a living (or unreaped) process of this machine."""
        return cls(
            pid=pid,
            start_time=start_time(pid) or 0,
            pgid=os.getpgid(pid),
            host=socket.gethostname(),
            kernel=kernel_id(),
            journal_sequence=journal_sequence,
            oom_kills=oom_kills(),
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ProcessRecord | None:
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: item for name, item in value.items() if name in known})
        except TypeError:
            return None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def is_local(self) -> bool:
        """True when the process id can be looked up from here."""
        return self.kernel == kernel_id()

    @property
    def was_rebooted(self) -> bool:
        """True when this very machine (or container) has started anew since: nothing of it can live."""
        return not self.is_local and self.host == socket.gethostname()

    @property
    def lives(self) -> bool:
        """True when the process runs on this machine; a zombie and a reused id do not count."""
        return self.is_local and start_time(self.pid) == self.start_time


def start_time(pid: int) -> int | None:
    """Start of process `pid` in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself hold spaces and parentheses: count fields from the last one.
    after_name = stat[stat.rindex(b")") + 2 :].split()
    state, started = after_name[0], int(after_name[19])
    return None if state in (b"Z", b"X", b"x") else started


def kernel_id() -> str:
    """Identity of the boot and the process namespace in which a process id means something."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def oom_kills() -> int:
    """Out-of-memory kills counted by this process's control group (version 2); -1 when it does not tell."""
    try:
        group = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip().lstrip("/")
        for name in (f"/sys/fs/cgroup/{group}/memory.events", "/sys/fs/cgroup/memory.events"):
            path = Path(name)
            if path.exists():
                counts = dict(line.split() for line in path.read_text().splitlines())
                return int(counts.get("oom_kill", -1))
    except (OSError, ValueError):
        pass
    return -1


def how_it_ended(record: ProcessRecord) -> str:
    """How a process ended, in words that follow "The process vanished"; empty when nobody saw it."""
    if record.exit_code is None:
        return ""
    code = record.exit_code
    number = -code if code < 0 else code - 128 if code > 128 else 0
    try:
        name = signal.Signals(number).name if number else ""
    except ValueError:
        name = ""
    if not name:
        return f"exit code {code}"
    if number == signal.SIGKILL and record.oom_killed:
        return f"{name}, out of memory"
    if number == signal.SIGKILL and record.oom_kills < 0:
        return f"{name}, likely out of memory"
    return name
