"""The warm model of a worker, and one request for generations as a stream of messages.

A request is a generator that gives the thread back after every token: whoever owns the model can run several requests
in turn, and closing the generator ends the work with nothing left behind.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from qscope.errors import Stopped, UserError
from qscope.models import LoadedModel, choose_device, load_model, use_threads
from qscope.models.generation import Generation, TextStream, refuse_beyond_context
from qscope.models.kernels import implementation_facts
from qscope.models.prompts import Prompt, render_prompt
from qscope.steering.batch import SteeredBatch
from qscope.steering.resolve import ResolvedSpec
from qscope.steering.resolver import SpecResolver
from qscope.steering.saes import NoSaes, StoredSaes, state_of
from qscope.v1 import inference_pb2 as pb

Messages = Iterator[pb.GenerateResponse]
#: Turns the name of SAEs in a request (a run id, a path, a repository) into what `formats.load` takes.
FindSaes = Callable[[str], Path | str]
#: Sets of SAEs kept beside the model. Each may use half of what is free when it is first used.
_MOST_SAES = 3


class WarmModel:
    """The one model a worker holds, with the SAEs that were used on it. Used by one thread only."""

    def __init__(self) -> None:
        self._key: bytes = b""
        self._loaded: LoadedModel | None = None
        # By place; the one used last stands last.
        self._resolvers: OrderedDict[str, tuple[object, SpecResolver]] = OrderedDict()
        self._latest = ""
        self._warnings: list[str] = []

    def model(self, request: pb.GenerateRequest) -> Iterator[pb.GenerateResponse | LoadedModel]:
        """The model of a request: notices first, the loaded model last."""
        key = b"\0".join(
            [
                request.model.encode(),
                request.model_options.SerializeToString(deterministic=True),
                request.compute.SerializeToString(deterministic=True),
            ]
        )
        if self._loaded is None or key != self._key:
            yield _notice(f"loading {request.model}")
            # The old model first: two would need the memory of both.
            self._loaded, self._resolvers = None, OrderedDict()
            use_threads(request.compute.threads)
            self._loaded = load_model(request.model, request.model_options, choose_device(request.compute.device))
            self._key = key
        yield self._loaded

    def saes(self, name: str, find: FindSaes, *, offline: bool) -> SpecResolver:
        """What turns specs over the SAEs called `name` into numbers; it keeps what it loaded and measured."""
        assert self._loaded is not None
        try:
            place = find(name)
        except UserError as error:
            # Plain vectors need no SAE: the fault is one when a feature is asked for.
            return SpecResolver(self._loaded, NoSaes(error))
        key, state = str(place), state_of(place)
        if name == "latest":
            # It moves on with every training; who wants the older SAEs names them.
            if self._latest != key:
                self._resolvers.pop(self._latest, None)
            self._latest = key
        known = self._resolvers.pop(key, None)
        if known is None or known[0] != state:
            # The old ones first: their memory is free for the new ones, unless a request still uses them.
            known = None
            while len(self._resolvers) >= _MOST_SAES:
                self._resolvers.popitem(last=False)
            saes = StoredSaes(place, self._loaded, offline=offline, warn=self._warnings.append, at="sae")
            known = (state, SpecResolver(self._loaded, saes))
        self._resolvers[key] = known
        return known[1]

    def take_warnings(self) -> list[str]:
        """What is to be said about SAEs that were opened since it was last asked."""
        taken, self._warnings[:] = list(self._warnings), []
        return taken


def generate(
    warm: WarmModel, request: pb.GenerateRequest, find: FindSaes, is_cancelled: Callable[[], bool] = lambda: False
) -> Messages:
    """Serves one request.

    Args:
        warm: the model.
        request: what is asked for.
        find: finds the SAEs.
        is_cancelled: asked where much is done between two messages; the request then ends there.

    Yields:
        notices, ``started``, steps and row ends, ``finished``.

    Raises:
        UserError: everything a user can mend, before the first token; NOTHING_STEERED after the last.
        Stopped: it was cancelled between two messages.
    """
    loaded: LoadedModel | None = None
    for item in warm.model(request):
        if isinstance(item, pb.GenerateResponse):
            yield item
        else:
            loaded = item
    assert loaded is not None
    began = time.monotonic()
    prompts = [
        render_prompt(loaded.tokenizer, row.prompt, request.format, at=f"rows[{index}].prompt")
        for index, row in enumerate(request.rows)
    ]
    for index, prompt in enumerate(prompts):
        refuse_beyond_context(loaded, len(prompt), request.sampling.max_tokens, at=f"rows[{index}].prompt")
    resolver = warm.saes(request.sae or "latest", find, offline=request.model_options.offline)
    specs = _resolve_rows(request, resolver, is_cancelled)
    batch = SteeredBatch(loaded, prompts, specs, resolver.saes)
    for sentence in warm.take_warnings():
        yield _notice(sentence, warning=True)
    yield pb.GenerateResponse(
        started=pb.GenerationStarted(
            facts=[*_facts(loaded), *implementation_facts(loaded)], prompt_tokens=[len(prompt) for prompt in prompts]
        )
    )
    yield from _run(loaded, prompts, request, specs, batch, began)
    batch.refuse_if_nothing_happened(at="rows[{row}].steering")


def _resolve_rows(
    request: pb.GenerateRequest, resolver: SpecResolver, is_cancelled: Callable[[], bool]
) -> list[ResolvedSpec]:
    """One resolved spec per row; rows with equal messages share one."""
    known: dict[bytes, ResolvedSpec] = {}
    specs = []
    for index, row in enumerate(request.rows):
        key = row.steering.SerializeToString(deterministic=True)
        if key not in known:
            # Reading files, converting SAEs and measuring units take long, and no message is sent meanwhile.
            if is_cancelled():
                raise Stopped
            at = f"rows[{index}].steering"
            spec, scales = resolver.expand(row.steering, at=at)
            known[key] = resolver.resolve(spec, scales, at=at, should_stop=is_cancelled)
        specs.append(known[key])
    return specs


def _run(
    loaded: LoadedModel,
    prompts: list[Prompt],
    request: pb.GenerateRequest,
    specs: list[ResolvedSpec],
    batch: SteeredBatch,
    began: float,
) -> Messages:
    run = Generation(
        loaded,
        [prompt.ids_T for prompt in prompts],
        request.sampling,
        [row.noise for row in request.rows],
        edits=batch.edits(),
        should_abort=batch.take_aborted,
    )
    texts = [TextStream(loaded.tokenizer, request.sampling.stop) for _ in prompts]
    ended: dict[int, pb.EndReason] = {}
    first = 0.0
    while not run.done:
        step = run.step()
        first = first or time.monotonic() - began
        deltas = []
        for drawn in step.drawn:
            is_end = step.ended.get(drawn.row) == pb.END_REASON_END_TOKEN
            text = texts[drawn.row]
            new = "" if is_end else text.push(drawn.token)
            if text.stopped:
                step.ended[drawn.row] = pb.END_REASON_STOP_TEXT
                run.end(drawn.row)
            if drawn.row in step.ended and not text.stopped:
                new += text.finish()
            deltas.append(pb.RowDelta(row=drawn.row, token_id=drawn.token, text=new, logprob=drawn.logprob))
        for row in step.ended:
            if row not in {drawn.row for drawn in step.drawn} and (rest := texts[row].finish()):
                deltas.append(pb.RowDelta(row=row, text=rest))
        ended |= step.ended
        if deltas:
            yield pb.GenerateResponse(step=pb.GenerationStep(rows=deltas))
        # Sizes of changes are read from the device only at the end of a row.
        proofs = batch.row_proofs() if step.ended else []
        for row, reason in step.ended.items():
            proof = proofs[row].message(batch.proof.forward_passes, specs[row].hash)
            yield pb.GenerateResponse(
                row_ended=pb.RowEnded(row=row, reason=reason, tokens=run.generated[row], proof=proof)
            )
    yield pb.GenerateResponse(
        finished=pb.GenerationFinished(
            tokens=sum(run.generated), first_token_seconds=first, seconds=time.monotonic() - began
        )
    )


def _facts(loaded: LoadedModel) -> list[str]:
    device = loaded.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return [f"{loaded.facts.name} ({loaded.facts.architecture}, {loaded.facts.dtype}) on {name}"]


def _notice(text: str, warning: bool = False) -> pb.GenerateResponse:
    return pb.GenerateResponse(notice=pb.GenerationNotice(text=text, warning=warning))
