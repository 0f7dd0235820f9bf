"""What a task of ``qscope features`` would read, hold and write; part of :mod:`qscope.recipes.plan`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from qscope.features.contexts import FEATURES_AT_ONCE
from qscope.features.encoders import sae_layers
from qscope.features.shards import Extract
from qscope.models import ModelShape, select_layers
from qscope.recipes.feature_parts import EXTRACT, feature_set_of, wanted_features
from qscope.recipes.plan_words import ranges, text_fact
from qscope.recipes.shared import place_of_saes, run_or_path
from qscope.sae import formats
from qscope.sae.formats.releases import find_release
from qscope.v1 import experiment_pb2, run_pb2
from qscope.v1.diagnose_pb2 import DiagnoseFeatures
from qscope.v1.explain_pb2 import LABEL_WRITER_OFFLINE
from qscope.v1.features_pb2 import CONTRAST_UNIT_TOKEN, LOOP_ORIGIN_GENERATED, LOOP_ORIGIN_GIVEN

FEATURE_TASKS = (
    "extract_features",
    "contrast_features",
    "top_features",
    "language_features",
    "repetition_features",
    "explain_features",
    "diagnose_features",
)
_FLOAT32, _FLOAT64 = 4, 8
#: Bytes of one extracted code in memory (int64 row, three int32, float32), and again while it is ordered.
CODE_BYTES = 24
#: What a chat template adds to a prompt, at most.
TEMPLATE_TOKENS = 64
#: Residuals and gradients `features diagnose` holds before it goes through the SAEs.
HELD_BYTES = 4 << 30
#: Tokens of a pass over ordinary text (:func:`qscope.steering.calibration.measure_activity`).
BASELINE_BATCH = 8 * 256
#: Residual-sized tensors alive in one block of the model.
BLOCK_TENSORS = 24


@dataclass(frozen=True)
class Estimate:
    """A plan without the facts every task shares, and the multiply-adds (times two) it takes."""

    planned: run_pb2.Plan
    products: float


@dataclass(frozen=True)
class Scope:
    """SAEs in use: layers, features of each, k; estimated from the size of the files, without reading them.

    ``features`` are those a task asks for by name, of all layers.
    """

    layers: list[int]
    d_sae: int
    k: int
    features: int = 0


def plan_features(
    experiment: experiment_pb2.Experiment, shape: ModelShape, device: torch.device, runs: Path
) -> Estimate:
    """Plans one of :data:`FEATURE_TASKS`."""
    name = experiment.WhichOneof("task")
    task = getattr(experiment, name)
    if name == "diagnose_features":
        return _plan_diagnose(task, shape, runs)
    if name == "top_features" and task.activations:
        return _plan_shards(task, runs)
    if name in ("top_features", "explain_features"):
        wanted = wanted_features(task, feature_set_of(task, runs, at=name), at=name)
        scope = scope_of(task, sorted(wanted), shape, runs, name)
        scope = replace(scope, features=sum(map(len, wanted.values())))
    else:
        select_layers(task.layers, shape.n_layers, at=f"{name}.layers")
        scope = scope_of(task, list(task.layers), shape, runs, name)
    reads = _READS[name](task)
    sources = ("positives", "negatives") if name == "contrast_features" else ("text",)
    texts = [(field, getattr(task, field)) for field in sources]
    context = max(source.context for _, source in texts)
    tokens = reads.documents * (reads.tokens_each or context)
    batch = max(task.model_batch_tokens, context)
    encoders = len(scope.layers) * scope.d_sae * (shape.d_model + 1) * _FLOAT32
    items = [
        ("language model", shape.weight_bytes),
        (
            "language model, one pass",
            batch * shape.d_model * (BLOCK_TENSORS + len(scope.layers)) * shape.bytes_per_parameter,
        ),
        (f"encoders, float32 ({len(scope.layers)} layers)", encoders),
        ("scores of a pass", min(batch * scope.d_sae, (1 << 24) + scope.d_sae) * 2 * _FLOAT32),
        *((what, size(scope)) for what, size in reads.holds),
        ("token ids of the documents", 0 if name == "extract_features" else tokens * 6),
    ]
    facts = [
        ("layers", f"{ranges(scope.layers)} of {shape.n_layers} ({len(scope.layers)}, counted from 0)"),
        ("SAE", f"about {scope.d_sae:,} features, k {scope.k or 'unknown'} (from the files' sizes and names)"),
        *((field, text_fact(source, at=f"{name}.{field}")) for field, source in texts),
        ("reads", reads.what),
        ("tokens", f"{tokens:,} at most" if reads.documents else "as many as the text has"),
        *reads.facts,
    ]
    planned = run_pb2.Plan(
        facts=[run_pb2.PlanFact(name=fact, value=value) for fact, value in facts],
        memory=[run_pb2.MemoryItem(name=what, bytes=int(size)) for what, size in items if size],
        disk_bytes=int(tokens * len(scope.layers) * (scope.k or scope.d_sae) * CODE_BYTES)
        if name == "extract_features"
        else 64 << 20,
    )
    if not task.masks.skip_first_token:
        planned.warnings.append("First tokens count: on Qwen they are attention sinks and can rule every mean.")
    if not reads.documents:
        planned.warnings.append("The whole text is read: time and disk are not known beforehand.")
    share_of_model = (max(scope.layers) + 1) / shape.n_layers
    model = 2 * shape.active_block_parameters * share_of_model
    sae = 2 * shape.d_model * scope.d_sae * len(scope.layers)
    return Estimate(planned, tokens * (model * reads.passes + sae))


@dataclass(frozen=True)
class _Reads:
    """What a task reads: documents (0: unknown), passes of the model over each, and what it holds meanwhile."""

    documents: int
    what: str
    passes: float = 1.0
    tokens_each: int = 0
    holds: tuple[tuple[str, Callable[[Scope], int]], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def _sums(groups: int, per_document: bool) -> Callable[[Scope], int]:
    each = 2 * _FLOAT64 * (2.5 if per_document else 1)
    return lambda scope: int(len(scope.layers) * scope.d_sae * (groups * each + _FLOAT32))


def _checks(units: float, chosen: int) -> Callable[[Scope], int]:
    """Of :class:`qscope.features.stats.ChosenStats`; a unit is a document, or a class of one that has several."""
    return lambda scope: int(len(scope.layers) * units * chosen * 3 * _FLOAT64)


def _contrast(task) -> _Reads:
    return _Reads(
        documents=2 * task.documents,
        what=f"{task.documents:,} documents on each side at most, {task.held_out_share:.0%} of them held out",
        holds=(
            ("sums by side and feature", _sums(2, task.unit != CONTRAST_UNIT_TOKEN)),
            ("held-out scores", _checks(2 * task.documents * task.held_out_share, task.top)),
        ),
        facts=(("finds", f"{task.top} features per layer"),),
    )


def _language(task) -> _Reads:
    # How many languages a text has is not known before it is read.
    languages = len(task.languages) or 10
    guess = "" if task.languages else " (memory and time are for 10 languages)"
    return _Reads(
        documents=languages * task.documents,
        what=f"{task.documents:,} documents per language at most, {task.held_out_share:.0%} of them held out{guess}",
        passes=2,
        holds=(
            ("sums by language and feature", _sums(languages, False)),
            (
                "held-out scores",
                _checks(languages * task.documents * task.held_out_share, task.top * languages),
            ),
        ),
        facts=(("finds", f"{task.top} features per layer and language"),),
    )


def _repetition(task) -> _Reads:
    generated = task.loops == LOOP_ORIGIN_GENERATED
    made = task.prefix_tokens + task.period_tokens * task.repetitions
    each = (
        task.prefix_tokens + task.new_tokens
        if generated
        else task.text.context
        if task.loops == LOOP_ORIGIN_GIVEN
        else made
    )
    return _Reads(
        documents=task.documents,
        what=f"{task.documents:,} documents at most, {task.held_out_share:.0%} of them held out",
        # Written token by token, the model is bound by reading its weights; ten times is a guess, not a measurement.
        passes=11 if generated else 1,
        tokens_each=each,
        holds=(
            ("sums by repetition and feature", _sums(task.repetitions, False)),
            ("held-out scores", _checks(task.documents * task.held_out_share * task.repetitions, task.top)),
        ),
        facts=(("finds", f"{task.top} features per layer"),),
    )


def _extract(task) -> _Reads:
    return _Reads(
        documents=task.documents,
        what=f"{task.documents:,} documents at most" if task.documents else "the whole text",
        holds=(
            (
                f"codes of one shard ({task.shard_documents:,} documents)",
                lambda scope: (
                    task.shard_documents
                    * task.text.context
                    * len(scope.layers)
                    * (scope.k or scope.d_sae)
                    * 2
                    * CODE_BYTES
                ),
            ),
        ),
        facts=(("writes", f"shards of {task.shard_documents:,} documents"),),
    )


def _contexts(task, kept: int) -> tuple[tuple[str, Callable[[Scope], int]], ...]:
    """What looking for contexts holds: dense activations of a pass, and ``kept`` windows of each feature."""
    tokens, window = max(task.model_batch_tokens, task.text.context), task.before + task.after + 1
    return (
        # Float32 on the device and on the CPU, places and masks beside them: 24 bytes. A window of each document, in
        # ids, places and activations: 32 bytes a token where documents are as long as a window.
        ("activations and windows of a pass", lambda scope: tokens * min(scope.features, FEATURES_AT_ONCE) * 56),
        # Ids in 8 bytes and activations in 4, and again while they are merged.
        ("contexts kept", lambda scope: scope.features * kept * (window * 12 + 20) * 2),
    )


def _top(task) -> _Reads:
    features = len(task.features)
    return _Reads(
        documents=task.documents,
        what=f"{task.documents:,} documents at most" if task.documents else "the whole text",
        holds=_contexts(task, task.contexts),
        facts=(("finds", f"{task.contexts} contexts a feature"),)
        + ((("features", f"{features:,} named"),) if features else ()),
    )


def _explain(task) -> _Reads:
    writes = (
        "the tokens it fires on and promotes"
        if task.writer == LABEL_WRITER_OFFLINE
        else f"{task.endpoint.model} writes"
    )
    return _Reads(
        documents=task.documents,
        what=f"{task.documents:,} documents at most, half of them kept from the writer",
        # The strongest of the held-out half are looked for eight times as deep as they are tested.
        holds=_contexts(task, max(2 * task.shown, 10 * task.tested)),
        facts=(
            ("labels", f"{writes}, from {task.shown} contexts a feature"),
            ("scores", f"on {task.tested} held-out contexts and as many silent windows a feature"),
        ),
    )


_READS = {
    "extract_features": _extract,
    "contrast_features": _contrast,
    "top_features": _top,
    "language_features": _language,
    "repetition_features": _repetition,
    "explain_features": _explain,
}


def _plan_diagnose(task: DiagnoseFeatures, shape: ModelShape, runs: Path) -> Estimate:
    select_layers(task.layers, shape.n_layers, at="diagnose_features.layers")
    scope = scope_of(task, list(task.layers), shape, runs, "diagnose_features")
    layers = len(scope.layers)
    # Hardly any text has more tokens than characters; a template adds its own.
    template = len(task.format.system) + TEMPLATE_TOKENS if task.format.chat else 0
    longest = template + max((len(case.prompt) + len(case.response) for case in task.cases), default=0)
    responses = sum(len(case.response) for case in task.cases)
    token_bytes = 2 * layers * shape.d_model * shape.bytes_per_parameter
    # A case is held whole before the SAEs are gone through.
    held = min(responses * token_bytes, HELD_BYTES + longest * token_bytes)
    read = BASELINE_BATCH if task.baseline_tokens else 0
    at_once = max(longest, read)
    items = [
        ("language model", shape.weight_bytes),
        # With what the backward pass needs of every block.
        (
            f"one pass with gradients, {longest:,} tokens at most",
            longest * (shape.n_layers * shape.d_model * 40 + 3 * shape.vocab_size) * _FLOAT32,
        ),
        ("baseline, one pass", read * shape.d_model * (BLOCK_TENSORS + 1) * shape.bytes_per_parameter),
        ("SAE, encoder and decoder, float32 (one layer at a time)", scope.d_sae * (2 * shape.d_model + 1) * _FLOAT32),
        ("scores and decoder rows", (min(at_once * scope.d_sae, 1 << 24) + scope.d_sae) * 2 * _FLOAT32 + (1 << 26)),
        ("residual stream and gradients of the responses", held),
        ("sums and baseline by feature", layers * scope.d_sae * 4 * _FLOAT64),
    ]
    facts = [
        ("layers", f"{ranges(scope.layers)} of {shape.n_layers} ({layers}, counted from 0)"),
        ("SAE", f"about {scope.d_sae:,} features, k {scope.k or 'unknown'} (from the files' sizes and names)"),
        ("cases", f"{len(task.cases):,}, a pass forward and back for each"),
        ("baseline", f"{task.baseline_tokens:,} tokens of ordinary text per layer"),
    ]
    characters = sum(len(case.prompt) + len(case.response) for case in task.cases)
    # Four characters a token, and a backward pass of twice the forward one.
    model = (characters / 4 * 3 + layers * task.baseline_tokens) * 2 * shape.parameters
    sae = (responses / 4 + task.baseline_tokens) * layers * 2 * shape.d_model * scope.d_sae
    return Estimate(
        run_pb2.Plan(
            facts=[run_pb2.PlanFact(name=fact, value=value) for fact, value in facts],
            memory=[run_pb2.MemoryItem(name=what, bytes=int(size)) for what, size in items if size],
        ),
        model + sae,
    )


def _plan_shards(task, runs: Path) -> Estimate:
    manifest = Extract(run_or_path(task.activations, runs, EXTRACT), field="top_features.activations").manifest
    largest = max((shard["codes"] for shard in manifest["shards"]), default=0)
    return Estimate(
        run_pb2.Plan(
            facts=[
                run_pb2.PlanFact(name="activations", value=f"{task.activations} ({manifest['codes']:,} codes)"),
                run_pb2.PlanFact(name="reads", value=f"{manifest['documents']:,} documents; the model does not run"),
            ],
            memory=[run_pb2.MemoryItem(name="one shard", bytes=largest * CODE_BYTES)],
            disk_bytes=64 << 20,
        ),
        0.0,
    )


def scope_of(task, layers: list[int], shape: ModelShape, runs: Path, name: str) -> Scope:
    """The SAEs a task would load."""
    place = place_of_saes(task.sae, runs, at=f"{name}.sae")
    wanted = sorted(layers) or sae_layers(place)
    if isinstance(place, str):
        release = find_release(place)
        return Scope(wanted, release.d_sae, release.k)
    found = formats.detect(place)
    some = next(iter(found.places.values()))
    weights = [some] if some.is_file() else [*some.glob("*.safetensors")]
    # Two float32 matrices and two biases.
    values = sum(path.stat().st_size for path in weights) // _FLOAT32
    d_sae = round((values - shape.d_model) / (2 * shape.d_model + 1))
    return Scope(wanted, d_sae, _k_of(some))


def _k_of(place: Path) -> int:
    """k from the document beside the weights; 0 when it does not say."""
    documents = [place.with_suffix("").with_suffix(".sae.json")] if place.is_file() else [*place.glob("*.json")]
    for path in documents:
        try:
            k = json.loads(path.read_text(encoding="utf-8")).get("k", 0)
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(k, int) and k > 0:
            return k
    return 0
