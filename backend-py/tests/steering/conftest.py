"""Tiny models of every kind with random SAEs, and specs by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qscope.models import LoadedModel
from qscope.models.generation import Generation
from qscope.models.prompts import Prompt
from qscope.sae.topk import TopKSae
from qscope.steering.batch import SteeredBatch
from qscope.steering.resolve import ResolvedSpec, resolve
from qscope.steering.saes import LoadedSaes
from qscope.steering.scales import Scales
from qscope.v1 import generation_pb2, steering_pb2

N_LAYERS, D_MODEL, D_SAE, K = 4, 32, 64, 8

OPS = {name: getattr(steering_pb2, f"STEERING_OP_{name.upper()}") for name in (
    "add", "set", "clamp_min", "clamp_max", "scale", "zero", "negate", "projection_cap"
)}  # fmt: skip
PHASES = {name: getattr(steering_pb2, f"PHASE_{name.upper()}") for name in ("all", "prompt", "generated")}


def make_edit(
    layers: list[int], features: list[int], op: str = "add", strength: float = 2.0, phase: str = "all", **more: Any
) -> steering_pb2.SteeringEdit:
    """An edit with every default filled in, as the command line would send it."""
    where = more.pop("where", {})
    return steering_pb2.SteeringEdit(
        layers=layers,
        features=features,
        op=OPS[op],
        strength=strength,
        unit=more.pop("unit", steering_pb2.STRENGTH_UNIT_RAW),
        top=1,
        where=steering_pb2.SteeringPlace(phase=PHASES[phase], **where),
        **more,
    )


def make_spec(*edits: steering_pb2.SteeringEdit, conflict: str = "SUM", **more: Any) -> steering_pb2.SteeringSpec:
    return steering_pb2.SteeringSpec(edits=edits, conflict=getattr(steering_pb2, f"CONFLICT_{conflict}"), **more)


def sae_of(layer: int) -> TopKSae:
    """Random, with decoder rows of different lengths, so that nothing can rely on unit norm."""
    generator = torch.Generator().manual_seed(100 + layer)
    W_dec_FD = torch.randn(D_SAE, D_MODEL, generator=generator) * torch.rand(D_SAE, 1, generator=generator)
    return TopKSae(
        torch.randn(D_SAE, D_MODEL, generator=generator),
        torch.randn(D_SAE, generator=generator) * 0.1,
        W_dec_FD,
        torch.randn(D_MODEL, generator=generator),
        k=K,
        layer=layer,
    )


SAES = LoadedSaes(sae_of)


def resolved(*edits: steering_pb2.SteeringEdit, **more: Any) -> ResolvedSpec:
    scales, saes = more.pop("scales", Scales()), more.pop("saes", SAES)
    return resolve(make_spec(*edits, **more), n_layers=N_LAYERS, d_model=D_MODEL, saes=saes, scales=scales)


def prompt_of(ids: list[int]) -> Prompt:
    return Prompt("", np.array(ids, dtype=np.int64), np.zeros(len(ids), dtype=np.uint8))


GREEDY = generation_pb2.Sampling(temperature=0, top_p=1, max_tokens=6, ignore_end=True)


def generate(
    loaded: LoadedModel,
    prompts: list[list[int]],
    specs: list[ResolvedSpec],
    sampling: generation_pb2.Sampling = GREEDY,
    noise: list[int] | None = None,
    **options: Any,
) -> tuple[list[list[int]], list[list[float]], SteeredBatch]:
    """Tokens and log-probabilities of each row, and the batch with its proof."""
    batch = SteeredBatch(loaded, [prompt_of(ids) for ids in prompts], specs, SAES)
    run = Generation(
        loaded,
        prompts,
        sampling,
        noise or list(range(len(prompts))),
        edits=batch.edits(),
        should_abort=batch.take_aborted,
        **options,
    )
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    while not run.done:
        for drawn in run.step().drawn:
            tokens[drawn.row].append(drawn.token)
            logprobs[drawn.row].append(drawn.logprob)
    return tokens, logprobs, batch


KINDS = [
    "qwen3",
    "qwen3_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_images",
    "qwen3_5_moe_images",
]


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest, tiny_model: Callable[[str], LoadedModel]) -> LoadedModel:
    """One of the six kinds of Qwen models, random and tiny."""
    return tiny_model(request.param)
