"""Signs that a run learns nothing or the wrong thing, and what the experiment wants done then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from qscope.errors import UserError
from qscope.v1.posttraining_pb2 import ALARM_ACTION_OFF, ALARM_ACTION_STOP


@dataclass
class Alarm:
    """One sign, watched step by step.

    Attributes:
        name: field of the experiment's alarms.
        action: warn, stop or off.
        patience: steps in a row that show the sign before the alarm is raised.
        message: what it means, a sentence.
        remedy: what to do about it.
        row: steps in a row so far.
        raised: whether it was raised since the sign began.
    """

    name: str
    action: int
    patience: int
    message: str
    remedy: str
    row: int = field(default=0)
    raised: bool = field(default=False)

    def seen(self, bad: bool) -> bool:
        """Counts a step; true where the alarm goes off now."""
        if self.action == ALARM_ACTION_OFF:
            return False
        self.row = self.row + 1 if bad else 0
        if not bad:
            self.raised = False
        due = self.row >= self.patience and not self.raised
        self.raised |= due
        return due

    @property
    def stops(self) -> bool:
        """Whether it ends the run."""
        return self.action == ALARM_ACTION_STOP


class AlarmBoard:
    """The alarms of a trainer. Those that only warn say so once; one that stops leaves an error behind.

    Args:
        alarms: by name.
        warn: told a sentence.
        at: experiment field of the alarms, for errors.
    """

    def __init__(self, alarms: list[Alarm], warn: Callable[[str], None], *, at: str) -> None:
        self._alarms = {alarm.name: alarm for alarm in alarms}
        self._warn, self._at = warn, at
        self.error: UserError | None = None

    def seen(self, name: str, bad: bool, detail: str = "") -> None:
        """Counts a step of one alarm.

        Args:
            name: of the alarm; one that was not given is never raised.
            bad: whether the step shows the sign.
            detail: numbers behind the message.
        """
        alarm = self._alarms.get(name)
        if alarm is None or not alarm.seen(bad):
            return
        message = f"{alarm.message}{f' ({detail})' if detail else ''}"
        if not alarm.stops:
            self._warn(f"{message}. {alarm.remedy}")
        elif self.error is None:
            self.error = UserError(
                f"{message}.",
                remedy=f"{alarm.remedy} A checkpoint is written; {self._at}.{name}: warn goes on regardless.",
                reason=f"ALARM_{name.upper()}",
            )

    def state(self) -> dict[str, list[int]]:
        """What a checkpoint keeps."""
        return {name: [alarm.row, int(alarm.raised)] for name, alarm in self._alarms.items()}

    def load_state(self, state: dict[str, list[int]]) -> None:
        """Goes on where :meth:`state` was taken."""
        for name, (row, raised) in state.items():
            if name in self._alarms:
                self._alarms[name].row, self._alarms[name].raised = row, bool(raised)
