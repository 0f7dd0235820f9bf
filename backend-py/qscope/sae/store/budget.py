"""Values held within a number of bytes, the least recently used given up first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from qscope.errors import UserError
from qscope.sae.store.folder import size

Value = TypeVar("Value")


class ByteBudget(Generic[Value]):
    """A cache that never holds more than its limit, not even while a value is made.

    What was given up stays in memory as long as its user keeps it: someone who needs several values at once asks with
    :meth:`require` first.

    Args:
        limit: bytes.
        place: what the bytes are of, for people: "host memory".
        remedy: what to do when a value does not fit.
    """

    def __init__(self, limit: int, place: str, remedy: str) -> None:
        self.limit, self._place, self._remedy = limit, place, remedy
        self._held: OrderedDict[Hashable, tuple[int, Value]] = OrderedDict()

    @property
    def used(self) -> int:
        """Bytes held now."""
        return sum(count for count, _ in self._held.values())

    def require(self, count: int, what: str) -> None:
        """Refuses ``count`` bytes that do not fit even when nothing else is held.

        Raises:
            UserError: OUT_OF_BUDGET.
        """
        if count > self.limit:
            subject = what[:1].upper() + what[1:]
            raise UserError(
                f"{subject} takes {size(count)} of {self._place}, and {size(self.limit)} may be used.",
                remedy=self._remedy,
                reason="OUT_OF_BUDGET",
            )

    def get(self, key: Hashable, count: int, make: Callable[[], Value], what: str) -> Value:
        """The value of ``key``; made when it is not held, after room for its ``count`` bytes was given up by others.

        Raises:
            UserError: it cannot fit (OUT_OF_BUDGET); nothing was made and nothing given up.
        """
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key][1]
        self.require(count, what)
        while self.used + count > self.limit:
            self._held.popitem(last=False)
        value = make()
        self._held[key] = (count, value)
        return value

    def clear(self) -> None:
        """Gives everything up."""
        self._held.clear()
