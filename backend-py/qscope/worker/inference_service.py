"""InferenceService: requests for the warm model, served by the one thread that owns it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from qscope.v1 import inference_pb2

log = logging.getLogger(__name__)

#: A client that reads more slowly than the model writes stops being served until it has caught up.
_MOST_UNREAD = 256


class _Request:
    """One call: a generator for the model's thread, and a mailbox for the event loop."""

    def __init__(self, make: Callable[[], Iterator[Any]], loop: asyncio.AbstractEventLoop) -> None:
        self._make, self._loop = make, loop
        self._messages: Iterator[Any] | None = None
        self.mailbox: asyncio.Queue[Any] = asyncio.Queue()
        self.cancelled = False

    @property
    def waiting(self) -> bool:
        return self.mailbox.qsize() >= _MOST_UNREAD

    @property
    def runnable(self) -> bool:
        """Whether there is something to do for it: a message to make, or to end it."""
        return self.cancelled or not self.waiting

    def advance(self) -> bool:
        """Makes the next message; False when there is none any more."""
        try:
            if self._messages is None:
                self._messages = self._make()
            self._post(next(self._messages))
            return True
        except StopIteration:
            self._post(None)
        except BaseException as error:
            self._post(error)
        return False

    def close(self) -> None:
        if self._messages is not None:
            self._messages.close()  # type: ignore[attr-defined]

    def _post(self, item: Any) -> None:
        # The loop may be gone when the worker ends.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.mailbox.put_nowait, item)


class ModelThread:
    """Owns everything that touches the model: a hook is global to the process, so only one thread may install any.

    Requests take turns, one message (one token of each of their rows) at a time.
    """

    def __init__(self) -> None:
        self._requests: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(self, request: _Request) -> None:
        with self._changed:
            self._requests.append(request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="model", daemon=True)
                self._thread.start()
            self._changed.notify()

    def cancel(self, request: _Request) -> None:
        with self._changed:
            request.cancelled = True
            self._changed.notify()

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return bool(self._requests)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._requests:
                    self._changed.wait()
                request = self._requests.popleft()
                # Kept in the line while it is served, so that `busy` is true.
                self._requests.append(request)
                if not request.runnable:
                    # A pause while others could go on would slow each of their tokens down.
                    if not any(other.runnable for other in self._requests):
                        self._changed.wait(0.01)
                    continue
            if request.cancelled or not request.advance():
                request.close()
                with self._changed:
                    self._requests.remove(request)


class InferenceService:
    """The methods of ``qscope.v1.InferenceService``.

    Args:
        model: the thread that owns the model.
    """

    def __init__(self, model: ModelThread) -> None:
        self._model = model
        self._warm: Any = None

    async def generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        call = _Request(lambda: self._serve(request, lambda: call.cancelled), asyncio.get_running_loop())
        self._model.submit(call)
        try:
            while (item := await call.mailbox.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            # Also reached when the client cancels or goes away.
            self._model.cancel(call)

    def _serve(
        self, request: inference_pb2.GenerateRequest, is_cancelled: Callable[[], bool]
    ) -> Iterator[inference_pb2.GenerateResponse]:
        # In the model's thread: the import of torch takes seconds.
        from qscope.recipes.shared import place_feature_files, place_of_saes
        from qscope.steering.session import WarmModel, generate

        if self._warm is None:
            self._warm = WarmModel()
        runs = Path(request.runs_folder)
        for row in request.rows:
            place_feature_files(row.steering, runs)
        return generate(self._warm, request, lambda name: place_of_saes(name, runs, at="sae"), is_cancelled)
