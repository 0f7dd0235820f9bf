"""What several recipes do alike."""

from __future__ import annotations

import json

from qscope.data import TokenStream, open_text
from qscope.models import LoadedModel
from qscope.runs import RunContext
from qscope.sae.evaluation import evaluate
from qscope.sae.topk import TopKSae
from qscope.v1 import sae_pb2, text_pb2


def open_tokens(source: text_pb2.TextSource, loaded: LoadedModel, *, seed: int, at: str) -> TokenStream:
    """The token sequences of one text source for one model; ``at`` is the source's field in the experiment."""
    reader = open_text(source, at=at, seed=seed)
    return TokenStream(reader, loaded.tokenizer, context=source.context, pack=source.pack, repeat=source.repeat, at=at)


def evaluate_into(
    context: RunContext,
    loaded: LoadedModel,
    saes: dict[int, TopKSae],
    tokens: TokenStream,
    *,
    count: int,
    batch_tokens: int,
    filter: sae_pb2.ActivationFilter,
    step: int = 0,
) -> None:
    """Evaluates SAEs, reports metrics ``eval_*`` of ``step`` and writes ``artifacts/evaluation.json``."""
    report = evaluate(
        loaded,
        saes,
        tokens,
        count=count,
        batch_tokens=batch_tokens,
        filter=filter,
        on_progress=lambda done: context.progress("evaluating", done, count, "tokens"),
        should_stop=lambda: context.stop_requested,
    )
    if report is None:
        context.stop(step)
    context.metrics(
        step, {layer: {f"eval_{name}": value for name, value in row.items()} for layer, row in report.per_layer.items()}
    )
    path = context.artifacts / "evaluation.json"
    path.write_text(json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n")
    context.artifact(path, kind="evaluation", description=f"{len(saes)} layers, {report.tokens:,} held-out tokens")
