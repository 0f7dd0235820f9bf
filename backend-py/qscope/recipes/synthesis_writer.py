"""Who writes for ``qscope synthesize``: the writer of an experiment, made ready."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from qscope.errors import UserError
from qscope.features.chat_server import ChatServer, Usage
from qscope.models import load_model
from qscope.recipes.feature_parts import Opened
from qscope.runs import RunContext
from qscope.runs.ledger import Ledger
from qscope.steering.saes import StoredSaes
from qscope.synthesis.local import LocalModel
from qscope.synthesis.writers import Asker, AskingWriter, ContinuingWriter, TemplateWriter, Writer
from qscope.v1.synthesize_pb2 import (
    SYNTHESIS_WRITER_ENDPOINT,
    SYNTHESIS_WRITER_LOCAL,
    SYNTHESIS_WRITER_TEMPLATES,
    Synthesize,
)

AT = "synthesize"
#: What was written, and what became of it, among the artifacts.
ANSWERS, LEDGER = "answers.jsonl", "ledger.jsonl"


@dataclass(frozen=True)
class Writing:
    """Who writes, who answers questions (None for templates), and what it has taken."""

    writer: Writer | None
    asker: Asker | None
    usage: Usage


def open_ledger(context: RunContext, name: str, what: str) -> Ledger:
    """The ledger of that name among the artifacts; ``what`` it holds, as in "verdicts"."""
    ledger = Ledger(context.artifacts / name)
    if ledger.damaged:
        context.warning(f"{ledger.damaged:,} damaged lines in {name} are passed over; they are asked for again.")
    if len(ledger):
        context.info(f"{len(ledger):,} {what} are kept from before")
    return ledger


def open_server(context: RunContext, task: Synthesize, stack: ExitStack) -> ChatServer | None:
    """The chat server, closed with the stack; None where another writes."""
    if task.writer != SYNTHESIS_WRITER_ENDPOINT:
        return None
    ledger = open_ledger(context, ANSWERS, "answers of the endpoint")
    return stack.enter_context(
        ChatServer(task.endpoint, at=f"{AT}.endpoint", ledger=ledger, should_stop=lambda: context.stop_requested)
    )


def open_writer(context: RunContext, task: Synthesize, opened: Opened, server: ChatServer | None) -> Writing:
    """The writer of the experiment; a local model other than the experiment's is loaded."""
    if task.writer == SYNTHESIS_WRITER_TEMPLATES:
        writer = TemplateWriter(list(task.templates), per_feature=task.per_feature, at=f"{AT}.templates")
        return Writing(writer, None, Usage())
    if task.writer == SYNTHESIS_WRITER_LOCAL:
        local = _local(context, task, opened)
        if task.local.format.chat:
            return Writing(_asking(task, local, task.local.batch_rows), local, local.usage)
        tokenizer = local.loaded.tokenizer
        writer = ContinuingWriter(
            local.go_on, tokenizer, start_tokens=task.local.start_tokens, at_once=task.local.batch_rows
        )
        return Writing(writer, None, local.usage)
    if server is not None:
        # Enough that no thread waits for the slowest answer of a few.
        return Writing(_asking(task, server, 4 * task.endpoint.concurrency), server, server.usage)
    return Writing(None, None, Usage())


def _asking(task: Synthesize, asker: Asker, at_once: int) -> AskingWriter:
    return AskingWriter(asker, purpose=task.purpose, attempts=task.attempts, shown=task.shown, at_once=at_once)


def _local(context: RunContext, task: Synthesize, opened: Opened) -> LocalModel:
    loaded = opened.loaded
    if task.local.model and task.local.model != context.experiment.model:
        if task.local.steer:
            raise UserError(
                "Only the experiment's own model can be steered: the SAEs belong to it.",
                remedy=f"Leave {AT}.local.model out, or set {AT}.local.steer to 0.",
                reason="WRITER_NOT_STEERABLE",
                field=f"{AT}.local.steer",
            )
        loaded = load_model(task.local.model, context.experiment.model_options, opened.loaded.device)
    saes = None
    if task.local.steer:
        offline = context.experiment.model_options.offline
        saes = StoredSaes(opened.place, loaded, offline=offline, tell=context.info, at=f"{AT}.sae")
    return LocalModel(
        loaded,
        task.local.sampling,
        task.local.format,
        batch_rows=task.local.batch_rows,
        seed_for=context.seed_for,
        saes=saes,
        steer=task.local.steer,
        ledger=open_ledger(context, ANSWERS, "answers of the model"),
        should_stop=lambda: context.stop_requested,
    )
