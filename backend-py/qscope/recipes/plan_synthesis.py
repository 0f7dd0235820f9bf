"""The plan of ``qscope synthesize``: texts are counted, the model does not run and nobody is asked."""

from __future__ import annotations

from pathlib import Path

from qscope.features.files import EXPLANATIONS, load_explanations
from qscope.models import ModelShape, select_layers
from qscope.recipes.feature_parts import feature_set_of, wanted_features
from qscope.recipes.plan_features import BLOCK_TENSORS, Estimate, scope_of
from qscope.recipes.plan_words import ranges
from qscope.recipes.shared import run_or_path
from qscope.synthesis.rows import read_rows
from qscope.v1 import run_pb2
from qscope.v1.redundancy_pb2 import BAD_ROWS_REFUSE
from qscope.v1.synthesize_pb2 import (
    SYNTHESIS_WRITER_ENDPOINT,
    SYNTHESIS_WRITER_LOCAL,
    SYNTHESIS_WRITER_NONE,
    SYNTHESIS_WRITER_TEMPLATES,
    Synthesize,
)

AT = "synthesize"
_FLOAT32, _INT64 = 4, 8
#: Characters of a token, to guess the length of texts without a tokenizer.
_CHARACTERS = 3.5
#: Bytes of a place where a feature fires most, and how many of them are held.
_PLACES = 24 * (1 << 22)


def plan_synthesis(task: Synthesize, shape: ModelShape, runs: Path) -> Estimate:
    """Plans a run; reads every text, so that rows and templates are checked before anything starts."""
    named = _named_layers(task, runs)
    layers = named or list(task.layers)
    if not named:
        select_layers(layers, shape.n_layers, at=f"{AT}.layers")
    scope = scope_of(task, layers, shape, runs, AT)
    tokens, facts = 0.0, []
    for name in ("seed_data", "reference", "natural"):
        refuse = task.bad_rows == BAD_ROWS_REFUSE
        found = read_rows(getattr(task, name), name, refuse_faults=refuse, at=f"{AT}.{name}")
        if found is None:
            continue
        left_out = f", {len(found.faults):,} rows left out" if found.faults else ""
        facts.append((name.replace("_", " "), f"{len(found.items):,} texts, {found.template}{left_out}"))
        tokens += sum(min(task.context, len(item.prompt) / _CHARACTERS + 1) for item in found.items)
    batch = max(task.model_batch_tokens, task.context)
    count = len(scope.layers)
    memory = [
        ("language model", shape.weight_bytes),
        ("language model, one pass", batch * shape.d_model * (BLOCK_TENSORS + count) * shape.bytes_per_parameter),
        (f"encoders, float32 ({count} layers)", count * scope.d_sae * shape.d_model * _FLOAT32),
        ("scores of a pass", min(batch * scope.d_sae, (1 << 24) + scope.d_sae) * 2 * _FLOAT32),
        ("texts in which each feature fires", 2 * count * scope.d_sae * _INT64),
        ("places where each feature fires most", _PLACES),
        ("token ids of the texts", int(tokens) * 4),
    ]
    if task.writer == SYNTHESIS_WRITER_LOCAL:
        rows, length = task.local.batch_rows, task.context + task.local.sampling.max_tokens
        cache = rows * length * 2 * shape.n_layers * shape.d_model * shape.bytes_per_parameter
        memory.append(("cache of one batch of the writer, at most", cache))
    planned = run_pb2.Plan(
        facts=[
            run_pb2.PlanFact(name=name, value=value)
            for name, value in (
                ("layers", f"{ranges(scope.layers)} of {shape.n_layers} ({count}, counted from 0)"),
                ("SAE", f"about {scope.d_sae:,} features, k {scope.k or 'unknown'} (from the files' sizes and names)"),
                *facts,
                ("tokens", f"about {tokens:,.0f} to read (guessed from {_CHARACTERS} characters a token)"),
                ("writer", _writer(task)),
                ("writes", _writes(task)),
                ("writing time", "not counted: how much is missing is known only after the reading"),
            )
        ],
        memory=[run_pb2.MemoryItem(name=name, bytes=int(size)) for name, size in memory],
        disk_bytes=64 << 20,
    )
    share_of_model = (max(scope.layers) + 1) / shape.n_layers
    model = 2 * shape.active_block_parameters * share_of_model
    return Estimate(planned, tokens * (model + 2 * shape.d_model * scope.d_sae * count))


def _named_layers(task: Synthesize, runs: Path) -> list[int]:
    targets, found = task.targets, set()
    feature_set = feature_set_of(targets, runs, at=f"{AT}.targets")
    if targets.explanations:
        place = run_or_path(targets.explanations, runs, EXPLANATIONS)
        explained = load_explanations(place, field=f"{AT}.targets.explanations")
        found = {one.layer for one in explained.explanations}
    if targets.features or (feature_set and (feature_set.entries or not targets.explanations)):
        found |= set(wanted_features(targets, feature_set, at=f"{AT}.targets"))
    return sorted(found)


def _writer(task: Synthesize) -> str:
    return {
        SYNTHESIS_WRITER_TEMPLATES: f"{len(task.templates)} templates",
        SYNTHESIS_WRITER_LOCAL: f"{task.local.model or 'the model itself'}, on this machine",
        SYNTHESIS_WRITER_ENDPOINT: f"{task.endpoint.model} at {task.endpoint.url}",
        SYNTHESIS_WRITER_NONE: "nobody: questions only",
    }[task.writer]


def _writes(task: Synthesize) -> str:
    limit = f", {task.limit:,} at most" if task.limit else ""
    styles = f", each rewritten in {len(task.styles)} styles" if task.styles else ""
    again = "; as many without a target" if task.random_baseline and task.writer != SYNTHESIS_WRITER_NONE else ""
    return f"{task.per_feature} texts a missing feature{limit}, {task.attempts} tries each{styles}{again}"
