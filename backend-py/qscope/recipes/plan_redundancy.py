"""The plan of ``qscope bench-redundancy``: its items are counted, the model does not run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from qscope.data.benchmarks import read_benchmarks
from qscope.data.items import Benchmark
from qscope.errors import UserError
from qscope.models import ModelShape, describe_model, select_layers
from qscope.recipes.panel_run import at_model, options_of, panel_models
from qscope.recipes.plan_features import BLOCK_TENSORS, CODE_BYTES, Estimate, scope_of
from qscope.recipes.plan_words import ranges
from qscope.steering.capability import LOGITS_AT_ONCE, TOKENS_AT_ONCE
from qscope.v1 import experiment_pb2, run_pb2
from qscope.v1.redundancy_pb2 import SCORE_MEASURE_EXACT, ItemScoring

AT = "bench_redundancy"
_FLOAT32 = 4
#: Bytes of an active pair in a footprint (int32); and of one of the main layer and rule while it is measured, and while
#: near-duplicates are looked for: indices both ways, and the sparse matrices of the join with what it holds at once.
#: Measured with 20,000 to 80,000 items of 32 and 50 features: 25, and 110 beside 45 MB.
_PAIR_BYTES, _MEASURED_BYTES, _JOINED_BYTES, _JOIN_BYTES = 4, 25, 110, 48 << 20
#: Tensors as large as the neurons at the answers of a pass, alive at once: read, scores in float32, their product.
_NEURON_TENSORS = 3
#: Characters of a token, to guess the length of prompts without a tokenizer; a third of it in Chinese.
_CHARACTERS = 3.5


def plan_redundancy(
    experiment: experiment_pb2.Experiment, shape: ModelShape, device: torch.device, runs: Path
) -> Estimate:
    """Plans a run; reads every benchmark, so that rows and templates are checked before anything starts."""
    task = experiment.bench_redundancy
    select_layers(task.layers, shape.n_layers, at=f"{AT}.layers")
    scope = scope_of(task, list(task.layers), shape, runs, AT)
    items, tokens, largest, facts, answered = 0, 0.0, 0, [], 0.0
    given = again = 0.0
    panel = _panel_shapes(experiment, device)
    for benchmark in read_benchmarks(task, AT):
        count = len(benchmark.items)
        left_out = f", {len(benchmark.faults):,} rows left out" if benchmark.faults else ""
        facts.append((benchmark.name, f"{count:,} items, prompt {benchmark.template}{left_out}"))
        items, largest = items + count, max(largest, count)
        answered += _answer_tokens(benchmark) if panel else 0
        tokens += sum(min(task.context, len(item.prompt) / _CHARACTERS + 1) for item in benchmark.items)
        for item in benchmark.items:
            if item.answer:
                answer = min(task.context - 1, len(item.answer) / _CHARACTERS + 1)
                given, again = given + answer, again + min(task.context, len(item.prompt) / _CHARACTERS + 1 + answer)
    batch = max(task.model_batch_tokens, task.context)
    pairs = len(scope.layers) * (scope.k or scope.d_sae)
    memory = [
        ("language model", shape.weight_bytes),
        (
            "language model, one pass",
            batch * shape.d_model * (BLOCK_TENSORS + len(scope.layers)) * shape.bytes_per_parameter,
        ),
        (f"encoders, float32 ({len(scope.layers)} layers)", len(scope.layers) * scope.d_sae * shape.d_model * _FLOAT32),
        ("codes of one shard", min(task.shard_items, largest) * pairs * 2 * CODE_BYTES),
        ("footprints of all items, every layer and rule", items * pairs * len(task.rules) * _PAIR_BYTES),
        _compared(items * (scope.k or scope.d_sae), bool(task.near_duplicate_from)),
    ]
    if given:
        facts.append(("answers", f"about {again:,.0f} tokens with their prompts, in a second pass"))
        if task.utility.neurons:
            # Of a block nearly all is the three matrices of its MLP.
            neurons = shape.active_block_parameters / (3 * shape.n_layers * shape.d_model)
            memory.append(("neurons at the answers of one pass", batch * neurons * _NEURON_TENSORS * _FLOAT32))
    if panel:
        facts.append(("panel", f"{len(panel)} models, about {answered:,.0f} tokens each (prompts and answers)"))
        # Gone before the experiment's own model is loaded: only what is beyond it counts.
        before = max(_panel_bytes(one) for one in panel) - sum(size for _, size in memory)
        memory.append(("a model of the panel with its answers, beyond the above", max(0, before)))
    planned = run_pb2.Plan(
        facts=[
            run_pb2.PlanFact(name=name, value=value)
            for name, value in (
                ("layers", f"{ranges(scope.layers)} of {shape.n_layers} ({len(scope.layers)}, counted from 0)"),
                ("SAE", f"about {scope.d_sae:,} features, k {scope.k or 'unknown'} (from the files' sizes and names)"),
                *facts,
                ("tokens", f"about {tokens:,.0f} (guessed from {_CHARACTERS} characters a token)"),
            )
        ],
        memory=[run_pb2.MemoryItem(name=name, bytes=int(size)) for name, size in memory],
        disk_bytes=int(items * pairs * CODE_BYTES + tokens * 5) + (8 << 20),
    )
    share_of_model = (max(scope.layers) + 1) / shape.n_layers
    model = 2 * shape.active_block_parameters * share_of_model
    sae = 2 * shape.d_model * scope.d_sae * len(scope.layers)
    panelled = sum(2 * one.active_block_parameters + 2 * one.d_model * one.vocab_size for one in panel)
    # Neurons are read in every block.
    answers = 2 * shape.active_block_parameters if task.utility.neurons else model
    return Estimate(planned, tokens * model + items * sae + again * answers + given * sae + answered * panelled)


def _compared(pairs: int, join: bool) -> tuple[str, int]:
    if join:
        return "measuring, and the search for near-duplicates", pairs * _JOINED_BYTES + _JOIN_BYTES
    return "measuring", pairs * _MEASURED_BYTES


def _panel_shapes(experiment: experiment_pb2.Experiment, device: torch.device) -> list[ModelShape]:
    """The models of the panel: each is found, or refused by its place, before the first is loaded."""
    shapes = []
    for scored in panel_models(experiment.bench_redundancy):
        try:
            shapes.append(
                describe_model(scored.model.model, options_of(scored.model, experiment.model_options), device)
            )
        except UserError as error:
            raise at_model(error, scored) from error
    return shapes


def _panel_bytes(shape: ModelShape) -> int:
    """Weights, keys and values of one batch, and its logits: as the model gives them, and as float32."""
    held = TOKENS_AT_ONCE * 2 * shape.n_layers * shape.d_model * shape.bytes_per_parameter
    return shape.weight_bytes + held + 2 * LOGITS_AT_ONCE * _FLOAT32


def _answer_tokens(benchmark: Benchmark) -> float:
    """Tokens a model of the panel reads and writes at most, guessed like those of prompts."""
    return sum(
        _of_item(len(item.prompt), item.right.text, item.right.choices, benchmark.scoring)
        for item in benchmark.items
        if item.right
    )


def _of_item(prompt: int, answer: str, choices: Sequence[str], scoring: ItemScoring) -> float:
    if scoring.measure == SCORE_MEASURE_EXACT:
        return prompt / _CHARACTERS + scoring.max_tokens
    return sum((prompt + len(text)) / _CHARACTERS + 1 for text in choices or [answer])
