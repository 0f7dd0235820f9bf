"""``qscope synthesize``: texts for the features that a data set misses, each checked, and what they cover."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np

from qscope.data.items import Benchmark
from qscope.errors import Stopped
from qscope.evaluation.panel import subset_sizes
from qscope.features.chat_server import Question, Usage
from qscope.recipes.admission import admit
from qscope.recipes.feature_parts import warn_not_finite
from qscope.recipes.synthesis_material import (
    Material,
    named_in,
    open_layers,
    progress_of,
    read_material,
    read_source,
    texts_of,
)
from qscope.recipes.synthesis_report import Outcome, synthesis_lines, synthesis_report, write_outcome
from qscope.recipes.synthesis_writer import LEDGER, Writing, open_ledger, open_server, open_writer
from qscope.runs import RunContext
from qscope.runs.files import write_jsonl
from qscope.runs.ledger import Ledger
from qscope.synthesis.contexts import Excerpts, random_excerpts
from qscope.synthesis.coverage import coverage_in_order, coverage_of_draws, texts_needed
from qscope.synthesis.duplicates import Duplicates
from qscope.synthesis.fired import FiredReader
from qscope.synthesis.judges import BENIGN, HARMFUL, judged_risks, judged_same
from qscope.synthesis.loop import Loop, Slot, Verdict, reasons
from qscope.synthesis.responses import Response, fixed_responses, written_responses
from qscope.synthesis.styles import Style, chosen_styles
from qscope.synthesis.writers import Asker, AskingWriter, Brief
from qscope.v1.synthesize_pb2 import (
    PROMPT_RISK_HARMFUL,
    PROMPT_RISK_JUDGED,
    RESPONDER_NONE,
    RESPONDER_TEMPLATE,
    SYNTHESIS_WRITER_NONE,
    Synthesize,
)

AT = "synthesize"
#: Excerpts that a text without a target may go by.
_RANDOM_EXCERPTS = 4


def run(context: RunContext) -> None:
    """Reads what is there, writes what is missing, and compares; a resumed run asks and checks nothing twice."""
    admit(context)
    task: Synthesize = context.experiment.synthesize
    rows = {name: read_source(context, task, name) for name in ("seed_data", "reference", "natural")}
    styles = chosen_styles(task.styles, at=f"{AT}.styles")
    with ExitStack() as stack:
        # Before an hour of reading: a key that is missing, or a template that is malformed, is so now.
        server = open_server(context, task, stack)
        named = named_in(context, task)
        opened = open_layers(context, task, named)
        writing = open_writer(context, task, opened, server)
        reader = FiredReader(
            opened.loaded,
            opened.saes,
            context=task.context,
            rendering=task.rendering,
            masks=task.masks,
            threshold=task.threshold,
            batch_tokens=task.model_batch_tokens,
            at=AT,
            should_stop=lambda: context.stop_requested,
        )
        try:
            material = read_material(context, task, opened, reader, rows, named, server)
            if not material.missing:
                context.info("Nothing is missing: every wanted feature fires in the seed data set.")
            if bare := sum(not material.targets[place].contexts for place in material.missing):
                context.warning(
                    f"{bare:,} of {len(material.missing):,} missing features have no excerpt to show what they "
                    f"fire on: name {AT}.reference, or more of it."
                )
            if task.writer == SYNTHESIS_WRITER_NONE:
                _questions_only(context, task, material)
                return
            outcome = _written(context, task, material, writing, reader, styles)
            natural, lengths = _natural(context, material, reader, rows["natural"])
            outcome = replace(outcome, natural=natural, natural_tokens=lengths)
        except Stopped:
            context.stop(0)
        if reader.cut:
            context.warning(f"{reader.cut:,} texts lost their end to {AT}.context.")
        warn_not_finite(context, reader.not_finite)
        outcome = replace(outcome, usage=writing.usage, endpoint=task.endpoint if server else None)
        _compare(context, task, material, outcome)
        write_outcome(context, task, opened, outcome, [one for one in rows.values() if one is not None])
        context.report(synthesis_report(context.experiment.name, outcome))
        context.info("\n".join(synthesis_lines(outcome)))


def _slots(task: Synthesize, material: Material) -> list[Slot]:
    return [
        Slot(f"{target.name}#{number}", number, target, target.contexts)
        for number in range(task.per_feature)
        for target in (material.targets[place] for place in material.missing)
    ]


def _questions_only(context: RunContext, task: Synthesize, material: Material) -> None:
    """What a writer would be asked, for whoever writes elsewhere."""
    writer = AskingWriter(_Nobody(), purpose=task.purpose, attempts=task.attempts, shown=task.shown, at_once=1)
    slots = _slots(task, material)
    slots = slots[: task.limit] if task.limit else slots
    path = context.artifacts / "prompts.jsonl"
    rows = []
    for slot in slots:
        question = writer.question(Brief(slot.name, slot.number, 0, slot.target, slot.contexts))
        messages = [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}]
        rows.append({"slot": slot.name, "messages": messages, "metadata": {"target": slot.target.name}})
    write_jsonl(path, rows)
    context.artifact(path, kind="prompts", description=f"{len(rows):,} questions for a writer")
    context.info(
        f"{len(material.targets):,} wanted features, {len(material.missing):,} of them missing; "
        f"{len(rows):,} questions written, none asked"
    )


class _Nobody:
    def answer_all(self, questions: Sequence[Question]) -> list:
        raise AssertionError("nobody is asked")


def _written(
    context: RunContext,
    task: Synthesize,
    material: Material,
    writing: Writing,
    reader: FiredReader,
    styles: Sequence[Style],
) -> Outcome:
    ledger = open_ledger(context, LEDGER, "verdicts")
    places = {slot.name: slot for slot in _slots(task, material)}
    loop = Loop(
        writing.writer,
        reader,
        ledger,
        attempts=task.attempts,
        same=partial(judged_same, writing.asker, tries=task.attempts) if task.same_meaning and writing.asker else None,
        should_stop=lambda: context.stop_requested,
        on_verdicts=lambda kept: told(kept),
    )
    duplicates = Duplicates(task.max_overlap, material.seeds)
    wanted = min(len(places), task.limit) if task.limit else len(places)
    told = _watch(context, task, loop, writing.usage, "writing", wanted)
    kept = loop.fill(list(places.values()), duplicates, limit=task.limit)
    rewrites = [
        Slot(
            f"{verdict.slot}~{style.name}",
            places[verdict.slot].number,
            places[verdict.slot].target,
            places[verdict.slot].contexts,
            style,
            verdict.text,
            verdict.slot,
        )
        for style in styles
        for verdict in kept
    ]
    places |= {slot.name: slot for slot in rewrites}
    told = _watch(context, task, loop, writing.usage, "rewriting", len(rewrites))
    kept += loop.fill(rewrites, duplicates)
    responses = _responses(task, writing.asker, [verdict.text for verdict in kept])
    random_texts = _random(context, task, material, writing, reader, ledger, loop.verdicts, len(kept))
    return Outcome(
        targets=material.targets,
        missing=material.missing,
        seed_counts=material.seed_counts,
        slots=places,
        verdicts=loop.verdicts,
        kept=kept,
        responses=responses,
        random=random_texts,
    )


def _watch(
    context: RunContext,
    task: Synthesize,
    loop: Loop,
    usage: Usage,
    phase: str,
    total: int,
    before: Sequence[Verdict] = (),
) -> Callable[[int], None]:
    """Progress, and what it takes: tries, tokens, cost. What an earlier attempt told is not told again.

    Args:
        before: verdicts of the loops before this one.
    """
    last = len(loop.verdicts) - loop.recalled

    def told(kept: int) -> None:
        nonlocal last
        context.progress(phase, kept, total, "texts")
        if len(loop.verdicts) - loop.recalled > last:
            last = len(loop.verdicts) - loop.recalled
            verdicts = [*before, *loop.verdicts]
            values = {
                "texts_tried": len(verdicts),
                "texts_kept": sum(verdict.kept for verdict in verdicts),
                "requests": usage.requests,
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
            }
            if task.endpoint.input_price or task.endpoint.output_price:
                values["cost"] = usage.cost(task.endpoint)
            context.metrics(len(verdicts), {-1: {name: float(value) for name, value in values.items()}})

    return told


def _responses(task: Synthesize, asker: Asker | None, prompts: Sequence[str]) -> list[Response]:
    if task.risk == PROMPT_RISK_JUDGED and asker is not None:
        risks = judged_risks(asker, prompts, task.attempts)
    else:
        risks = [HARMFUL if task.risk == PROMPT_RISK_HARMFUL else BENIGN] * len(prompts)
    if task.responses == RESPONDER_NONE:
        return [Response(risk, reason="" if risk else "risk unclear") for risk in risks]
    if task.responses == RESPONDER_TEMPLATE or asker is None:
        return fixed_responses(prompts, risks, refusal=task.refusal, help_text=task.help)
    return written_responses(asker, prompts, risks, task.attempts)


def _random(
    context: RunContext,
    task: Synthesize,
    material: Material,
    writing: Writing,
    reader: FiredReader,
    ledger: Ledger,
    before: Sequence[Verdict],
    count: int,
) -> list[Verdict]:
    """As many texts by the same writer, without a target, kept by the same rules but that a feature must fire."""
    if not task.random_baseline or not count:
        return []
    excerpts = Excerpts(reader.tokenizer, before=task.before, after=task.after)
    seed = context.seed_for("random excerpts")
    shown = random_excerpts(material.ids, excerpts, count * _RANDOM_EXCERPTS, seed=seed)
    slots = [
        Slot(f"random#{n}", n, None, tuple(shown[n * _RANDOM_EXCERPTS : (n + 1) * _RANDOM_EXCERPTS]))
        for n in range(count)
    ]
    loop = Loop(
        writing.writer,
        reader,
        ledger,
        attempts=task.attempts,
        should_stop=lambda: context.stop_requested,
        on_verdicts=lambda kept: told(kept),
    )
    told = _watch(context, task, loop, writing.usage, "writing without a target", count, before)
    return loop.fill(slots, Duplicates(task.max_overlap, material.seeds))


def _natural(
    context: RunContext, material: Material, reader: FiredReader, rows: Benchmark | None
) -> tuple[list[np.ndarray], list[int]]:
    """The missing targets that each natural text fires, and its tokens."""
    texts, targets = texts_of(rows), material.target_set()
    told = progress_of(context, "reading natural texts", len(texts))
    found, lengths = [], []
    for fired in reader.stream(texts, told):
        found.append(targets.missing_in(fired.key_P))
        lengths.append(len(fired.ids_T))
    return found, lengths


def _compare(context: RunContext, task: Synthesize, material: Material, outcome: Outcome) -> None:
    """The coverage curves, at the budget of what was kept."""
    targets = material.target_set()
    texts = [verdict.key_P for verdict in outcome.dataset]
    budget = len(texts)
    sizes = [0, *subset_sizes(budget, 60).tolist()] if budget else [0]
    in_order = coverage_in_order(targets, texts)
    outcome.sizes.extend(sizes)
    outcome.targeted.extend(in_order[sizes].tolist())
    first = [verdict.key_P for verdict in outcome.verdicts if verdict.attempt == 0 and verdict.text][:budget]
    outcome.first_tries = len(first)
    outcome.unverified = float(coverage_in_order(targets, first)[-1]) if first else math.nan
    outcome.seed_coverage = targets.seed_coverage
    if texts:
        outcome.tokens["targeted"] = float(np.mean([verdict.tokens for verdict in outcome.dataset]))
    for name, pool in (("random", [one.key_P for one in outcome.random]), ("natural", outcome.natural)):
        if not pool:
            continue
        seed = context.seed_for(f"{name} draws")
        outcome.drawn[name] = coverage_of_draws(targets, pool, sizes, draws=task.draws, seed=seed)
        outcome.pools[name] = len(pool)
        tokens = outcome.natural_tokens if name == "natural" else [one.tokens for one in outcome.random]
        outcome.tokens[name] = float(np.mean(tokens))
        outcome.needed[name] = texts_needed(targets, pool, float(in_order[-1]))
        # Texts differ in length, and a longer one fires more: the same comparison by tokens.
        alike = round(budget * outcome.tokens.get("targeted", 0.0) / max(1.0, outcome.tokens[name]))
        equal = coverage_of_draws(targets, pool, [min(alike, len(pool))], draws=task.draws, seed=seed)
        outcome.equal_tokens[name] = (int(equal.size_S[0]), float(equal.mean_S[0]), float(equal.sd_S[0]))
    outcome.reasons = reasons(outcome.verdicts)
    for response in outcome.responses:
        if response.reason:
            outcome.reasons[response.reason] += 1
