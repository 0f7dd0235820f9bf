"""The plans of ``qscope classify`` and ``qscope classify apply``; the model does not run."""

from __future__ import annotations

from pathlib import Path

from qscope.classification.files import point_at
from qscope.models import ModelShape, select_layers
from qscope.recipes.classify_parts import (
    APPLY,
    CLASSIFY,
    DIVISION,
    ToOpen,
    classifier_at,
    place_of_classifier,
    read_data,
    source_of,
    spread,
)
from qscope.recipes.plan_features import BLOCK_TENSORS, CODE_BYTES, Estimate, Scope, scope_of
from qscope.recipes.plan_words import ranges
from qscope.runs import seed_of
from qscope.v1 import run_pb2
from qscope.v1.classify_pb2 import ApplyClassifier, Classify

_FLOAT32 = 4
#: Characters of a token, to guess the length of texts without a tokenizer; a third of it in Chinese.
_CHARACTERS = 3.5
#: Distinct features of a text for each code of a token: most fire on several tokens of it.
_DISTINCT = 0.4


def plan_classify(task: Classify, shape: ModelShape, runs: Path, seed: int) -> Estimate:
    """Plans a run; reads all rows, so that columns and labels are checked before anything starts.

    Args:
        task: what would run.
        shape: of the model.
        runs: folder of the runs.
        seed: of the experiment.
    """
    select_layers(task.layers, shape.n_layers, at=f"{CLASSIFY}.layers")
    scope = scope_of(task, list(task.layers), shape, runs, CLASSIFY)
    # Divided as the run will divide them: of few texts, another seed may leave a side with too few.
    data = read_data(task, seed_of(seed, DIVISION))
    texts = len(data.texts)
    tokens = sum(min(task.context, len(text.text) / _CHARACTERS + 1) for text in data.texts)
    probes = spread(scope.layers, task.probe_layers)
    pairs = tokens * (scope.k or scope.d_sae) * _DISTINCT
    residuals = texts * shape.d_model * _FLOAT32
    shard = min(1.0, task.shard_texts / texts)
    memory = [
        *_model_memory(shape, scope, max(task.model_batch_tokens, task.context)),
        ("codes of one shard", pairs * shard * len(scope.layers) * 2 * CODE_BYTES),
        # As read, as a matrix, and once more for the probe.
        ("codes of one layer, all texts", pairs * 12 * 3),
        ("residuals of one layer, as a probe takes them", residuals * 5),
    ]
    count = data.counts()
    facts = [
        ("layers", f"{ranges(scope.layers)} of {shape.n_layers} ({len(scope.layers)}, counted from 0)"),
        ("SAE", f"about {scope.d_sae:,} features, k {scope.k or 'unknown'} (from the files' sizes and names)"),
        ("texts", f"{texts:,} ({data.repeated:,} repetitions and {len(data.faults):,} unusable rows left out)"),
        *(
            (side, f"{one['positive']:,} with the attribute, {one['negative']:,} without")
            for side, one in count.items()
        ),
        ("tokens", f"about {tokens:,.0f} (guessed from {_CHARACTERS} characters a token)"),
        ("probes", f"at layers {ranges(probes)}"),
    ]
    planned = run_pb2.Plan(
        facts=[run_pb2.PlanFact(name=name, value=value) for name, value in facts],
        memory=[run_pb2.MemoryItem(name=name, bytes=int(size)) for name, size in memory],
        disk_bytes=int(pairs * len(scope.layers) * 8 + residuals * len(probes)) + (8 << 20),
    )
    return Estimate(planned, tokens * _products(shape, scope))


def plan_apply(task: ApplyClassifier, shape: ModelShape, runs: Path) -> Estimate:
    """Plans a run; the texts are not counted, as they may be many."""
    classifier = classifier_at(place_of_classifier(task, runs))
    point_at(classifier, task.false_positive_rate, field=f"{APPLY}.false_positive_rate")
    source_of(task)
    opened = ToOpen(task, classifier)
    select_layers(opened.layers, shape.n_layers, at=f"{APPLY}.classifier")
    scope = scope_of(opened, opened.layers, shape, runs, APPLY)
    shard = task.shard_texts * classifier.context * (scope.k or scope.d_sae) * len(scope.layers)
    memory = [
        *_model_memory(shape, scope, max(task.model_batch_tokens, classifier.context)),
        ("texts and codes read at once", shard * 2 * CODE_BYTES),
    ]
    names = ", ".join(f"{one.layer}/{one.feature}" for one in classifier.features[:8])
    facts = [
        ("classifier", f"{classifier.attribute}: any of {len(classifier.features)} features ({names})"),
        ("layers", f"{ranges(scope.layers)} of {shape.n_layers}"),
        ("texts", f"{task.limit:,} at most" if task.limit else f"all of {task.source}"),
    ]
    planned = run_pb2.Plan(
        facts=[run_pb2.PlanFact(name=name, value=value) for name, value in facts],
        memory=[run_pb2.MemoryItem(name=name, bytes=int(size)) for name, size in memory],
        disk_bytes=(task.limit or 0) * 512 + (8 << 20),
    )
    if not task.limit:
        planned.warnings.append("All texts are read: time and disk are not known beforehand.")
    return Estimate(planned, task.limit * classifier.context * _products(shape, scope))


def _model_memory(shape: ModelShape, scope: Scope, batch: int) -> list[tuple[str, float]]:
    layers = len(scope.layers)
    return [
        ("language model", shape.weight_bytes),
        ("language model, one pass", batch * shape.d_model * (BLOCK_TENSORS + layers) * shape.bytes_per_parameter),
        (f"encoders, float32 ({layers} layers)", layers * scope.d_sae * (shape.d_model + 1) * _FLOAT32),
        ("scores of a pass", min(batch * scope.d_sae, (1 << 24) + scope.d_sae) * 2 * _FLOAT32),
    ]


def _products(shape: ModelShape, scope: Scope) -> float:
    """Multiply-adds of a token, times two."""
    share_of_model = (max(scope.layers) + 1) / shape.n_layers
    return 2 * shape.active_block_parameters * share_of_model + 2 * shape.d_model * scope.d_sae * len(scope.layers)
