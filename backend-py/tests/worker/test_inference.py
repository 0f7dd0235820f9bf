"""Streamed generations from a real worker: two clients at once, cancellation, errors, and memory that stays flat."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from qscope.sae import formats
from qscope.sae.topk import TopKSae
from qscope.v1 import inference_pb2 as pb
from qscope.v1 import steering_pb2
from qscope.worker.inference_service import ModelThread, _Request
from tests.steering.conftest import make_edit, make_spec

D_MODEL, D_SAE = 128, 256
#: Streamed one after the other in the test of memory; 1000 take a minute and a half.
_GENERATIONS = int(os.environ.get("QSCOPE_GENERATIONS", "300"))


@pytest.fixture(scope="module")
def saes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SAE of layer 2 of the embedded model."""
    folder = tmp_path_factory.mktemp("saes")
    generator = torch.Generator().manual_seed(0)
    sae = TopKSae(
        torch.randn(D_SAE, D_MODEL, generator=generator),
        torch.zeros(D_SAE),
        torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=generator), dim=1),
        torch.zeros(D_MODEL),
        k=16,
        layer=2,
    )
    formats.save({2: sae}, folder, ["native"], {})
    return folder


def request(saes: Path, *rows: tuple[str, steering_pb2.SteeringSpec], **more: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        model="embedded",
        sae=str(saes),
        runs_folder=str(saes),
        sampling={"temperature": 1, "top_p": 1, "max_tokens": more.pop("max_tokens", 20), "ignore_end": True},
        rows=[{"prompt": prompt, "steering": spec, "noise": index} for index, (prompt, spec) in enumerate(rows)],
        **more,
    )


def texts(messages: list[pb.GenerateResponse], rows: int) -> list[str]:
    found = [""] * rows
    for message in messages:
        for delta in message.step.rows:
            found[delta.row] += delta.text
    return found


STEER = make_spec(make_edit([2], [7], "add", 400.0))
NOTHING = make_spec()


def test_the_stream_is_started_steps_row_ends_finished(start_worker, saes):
    worker = start_worker("--owned")
    messages = list(worker.inference.Generate(request(saes, ("The file", STEER), ("The file", NOTHING)), timeout=120))
    kinds = [message.WhichOneof("event") for message in messages]
    assert kinds[:2] == ["notice", "started"]
    assert kinds[-3:] == ["row_ended", "row_ended", "finished"]
    assert kinds.count("step") == 20
    assert "embedded (Qwen3ForCausalLM, float32) on cpu" in messages[1].started.facts
    steered, plain = texts(messages, 2)
    assert steered != plain
    ends = {m.row_ended.row: m.row_ended for m in messages if m.HasField("row_ended")}
    (layer,) = ends[0].proof.layers
    assert (layer.layer, layer.generated_positions) == (2, 19)
    assert layer.mean_relative_change > 0.1
    assert not ends[1].proof.layers
    # Warm: no loading the second time, and the same words for the same noise.
    again = list(worker.inference.Generate(request(saes, ("The file", STEER), ("The file", NOTHING)), timeout=120))
    assert again[0].WhichOneof("event") == "started"
    assert texts(again, 2) == [steered, plain]


@pytest.mark.slow
def test_two_clients_at_once_get_what_each_asked_for(shared_worker, saes):
    worker = shared_worker
    asked = [request(saes, ("The file", spec), max_tokens=400) for spec in (STEER, NOTHING)]
    alone = [texts(list(worker.inference.Generate(one, timeout=120)), 1)[0] for one in asked]
    assert alone[0] != alone[1]
    found: list[list[tuple[float, str]]] = [[], []]

    def read(index: int) -> None:
        for message in worker.inference.Generate(asked[index], timeout=120):
            found[index] += [(time.monotonic(), delta.text) for delta in message.step.rows]

    threads = [threading.Thread(target=read, args=[index]) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["".join(text for _, text in pieces) for pieces in found] == alone
    # In turn, not one after the other: each begins before the other ends.
    assert found[0][0][0] < found[1][-1][0]
    assert found[1][0][0] < found[0][-1][0]


def test_a_cancelled_stream_frees_the_model_within_a_second(shared_worker, saes):
    worker = shared_worker
    rows = [(f"The file {index}", STEER) for index in range(64)]
    list(worker.inference.Generate(request(saes, ("Warm up", NOTHING)), timeout=120))
    long = worker.inference.Generate(request(saes, *rows, max_tokens=400), timeout=120)
    for message in long:
        if message.WhichOneof("event") == "step":
            break
    long.cancel()
    began = time.monotonic()
    short = list(worker.inference.Generate(request(saes, ("The file", NOTHING), max_tokens=1), timeout=120))
    assert short[-1].WhichOneof("event") == "finished"
    # A bound on a wait, not a timing: a request that was not cancelled would run for many seconds more.
    assert time.monotonic() - began < 5
    used = worker.cpu_seconds
    time.sleep(1)
    assert worker.cpu_seconds - used < 0.3, "something still works"


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"spec": make_spec(make_edit([9], [7]))}, "LAYER_OUT_OF_RANGE", "rows[0].steering.edits[0].layers[0]"),
        ({"spec": make_spec(make_edit([2], [999]))}, "FEATURE_OUT_OF_RANGE", "rows[0].steering.edits[0].features[0]"),
        ({"spec": make_spec(make_edit([3], [7]))}, "SAE_LAYER_MISSING", ""),
        ({"prompt": "  "}, "PROMPT_EMPTY", "rows[0].prompt"),
        ({"max_tokens": 600}, "CONTEXT_EXCEEDED", "rows[0].prompt"),
        (
            {"spec": make_spec(make_edit([2], [7], phase="generated")), "max_tokens": 1},
            "NOTHING_STEERED",
            "rows[0].steering",
        ),
        (
            {"spec": make_spec(make_edit([2], [7], where={"only": {"tokens": ["several words here"]}}))},
            "NOT_ONE_TOKEN",
            "rows[0].steering.edits[0].where.only.tokens[0]",
        ),
    ],
)
def test_mistakes_come_back_with_reason_remedy_and_place(shared_worker, saes, change, reason, field):
    prompt, spec = change.pop("prompt", "The file"), change.pop("spec", STEER)
    with pytest.raises(grpc.RpcError) as caught:
        list(shared_worker.inference.Generate(request(saes, (prompt, spec), **change), timeout=120))
    details = rpc_status.from_call(caught.value).details
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in details:
        detail.Unpack(info)
        detail.Unpack(bad)
    assert info.reason == reason
    assert info.metadata["remedy"] or reason == "SAE_LAYER_MISSING"
    assert [violation.field for violation in bad.field_violations] == ([field] if field else [])


class Endless:
    """Requests for a model's thread without a model: each message takes a moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.made = 0
        self.request = _Request(self._messages, loop)

    def _messages(self) -> Iterator[int]:
        while True:
            self.made += 1
            yield self.made


def test_a_reader_that_pauses_does_not_slow_the_others_down():
    async def messages_in_a_second() -> tuple[int, int]:
        loop, thread = asyncio.get_running_loop(), ModelThread()
        paused, read = Endless(loop), Endless(loop)
        thread.submit(paused.request)
        while not paused.request.waiting:
            await asyncio.sleep(0.01)
        at_rest = paused.made
        thread.submit(read.request)
        began = time.monotonic()
        while time.monotonic() - began < 1:
            await read.request.mailbox.get()
        for one in (paused, read):
            thread.cancel(one.request)
        while thread.busy:
            await asyncio.sleep(0.01)
        return read.made, paused.made - at_rest

    made, more = asyncio.run(messages_in_a_second())
    # With a pause of 10 ms before each there would be 100.
    assert made > 1000
    assert more <= 2


@pytest.mark.slow
def test_many_streamed_generations_leave_memory_flat(shared_worker, saes):
    one = request(saes, ("The file", STEER), max_tokens=8)

    def many(count: int) -> int:
        for _ in range(count):
            list(shared_worker.inference.Generate(one, timeout=120))
        return shared_worker.rss

    settled = many(_GENERATIONS // 3)
    grown = many(_GENERATIONS - _GENERATIONS // 3) - settled
    print(f"{_GENERATIONS:,} streamed generations: {grown / 1024:,.0f} KiB more after the first third")
    assert grown < 4 << 20
