"""What the user can mend: one sentence, a remedy, and the field of the experiment at fault; and being stopped."""

from __future__ import annotations


class UserError(Exception):
    """An error of the input or the surroundings, never of this program.

    Args:
        message: one sentence that names the offending value.
        remedy: what to do instead; empty only when nothing can be done.
        reason: upper-snake identifier that programs key on, for example ``LAYER_OUT_OF_RANGE``.
        field: path of the experiment field at fault, for example ``train_sae.layers[2]``; empty when none is.
    """

    def __init__(self, message: str, *, remedy: str = "", reason: str = "USER_ERROR", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.reason = reason
        self.field = field

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


class Stopped(Exception):
    """Asked to stop in the middle of work: no fault. The recipe turns it into the end of its run."""
