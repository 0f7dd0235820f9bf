"""The plan of ``qscope bench-redundancy``: its items are counted, the model does not run."""

from __future__ import annotations

from pathlib import Path

from qscope.data.benchmarks import read_benchmarks
from qscope.models import ModelShape, select_layers
from qscope.recipes.plan_features import BLOCK_TENSORS, CODE_BYTES, Estimate, scope_of
from qscope.recipes.plan_words import ranges
from qscope.v1 import run_pb2
from qscope.v1.redundancy_pb2 import BenchRedundancy

AT = "bench_redundancy"
_FLOAT32 = 4
#: Characters of a token, to guess the length of prompts without a tokenizer; a third of it in Chinese.
_CHARACTERS = 3.5


def plan_redundancy(task: BenchRedundancy, shape: ModelShape, runs: Path) -> Estimate:
    """Plans a run; reads every benchmark, so that rows and templates are checked before anything starts."""
    select_layers(task.layers, shape.n_layers, at=f"{AT}.layers")
    scope = scope_of(task, list(task.layers), shape, runs, AT)
    items, tokens, largest, facts = 0, 0.0, 0, []
    for benchmark in read_benchmarks(task, AT):
        count = len(benchmark.items)
        left_out = f", {len(benchmark.faults):,} rows left out" if benchmark.faults else ""
        facts.append((benchmark.name, f"{count:,} items, prompt {benchmark.template}{left_out}"))
        items, largest = items + count, max(largest, count)
        tokens += sum(min(task.context, len(item.prompt) / _CHARACTERS + 1) for item in benchmark.items)
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
        ("footprints of all items, every layer and rule", items * pairs * len(task.rules) * 16),
    ]
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
    return Estimate(planned, tokens * model + items * sae)
