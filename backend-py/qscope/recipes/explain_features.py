"""``qscope features explain``: a label for each feature, scored by detection on contexts the writer has not seen."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qscope import __version__
from qscope.errors import Stopped
from qscope.features.chat_server import ChatServer
from qscope.features.contexts import TopContexts, contexts_of_text, in_slices
from qscope.features.documents import Document, split
from qscope.features.encoders import model_record, sae_record
from qscope.features.files import save_features
from qscope.features.label_questions import (
    EXCERPTS,
    judge_question,
    label_of,
    verdicts,
    writer_question,
)
from qscope.features.labels import (
    Detection,
    firing_tokens,
    offline_label,
    promoted_tokens,
    spread_over,
    tokens_of,
)
from qscope.features.silent import SilentContexts
from qscope.recipes.admission import admit
from qscope.recipes.explain_report import explanation_lines, explanation_report
from qscope.recipes.feature_parts import (
    OfLayers,
    Opened,
    open_documents,
    open_model,
    pinned_features,
    refuse_unknown,
    tokens_text,
    wanted_features,
    warn_not_finite,
    watch,
)
from qscope.runs import RunContext
from qscope.runs.files import write_message
from qscope.runs.ledger import Ledger
from qscope.steering.saes import StoredSaes
from qscope.v1.explain_pb2 import LABEL_WRITER_ENDPOINT, ExplainFeatures, Explanation, ExplanationSet
from qscope.v1.features_pb2 import FeatureContext, FeatureContexts, FeatureSet

AT = "explain_features"
#: Answers of the endpoint, among the artifacts.
ANSWERS = "answers.jsonl"
#: Held-out contexts looked at for each one scored: those scored are spread over them, strong and weak.
_DEPTH = 8


@dataclass(frozen=True)
class Material:
    """What is known of one feature before it has a label.

    Attributes:
        layer, feature: which.
        seen: its contexts in the documents the writer may see.
        seen_silent: windows of those documents on which it is silent.
        active, silent: held-out contexts and silent windows, for the score.
        promotes: tokens its direction makes more likely.
    """

    layer: int
    feature: int
    seen: FeatureContexts
    seen_silent: Sequence[FeatureContext]
    active: Sequence[FeatureContext]
    silent: Sequence[FeatureContext]
    promotes: Sequence[str]


def run(context: RunContext) -> None:
    """Collects contexts on two halves of the text, has labels written from one, and scores them on the other."""
    admit(context)
    task: ExplainFeatures = context.experiment.explain_features
    given = pinned_features(context, task, at=AT)
    wanted = wanted_features(task, given, at=AT)
    # Before an hour of reading: a key that is missing is missing now.
    server = _server(context, task)
    opened = open_model(context, OfLayers(task, list(wanted)), at=AT)
    refuse_unknown(task, given, wanted, [sae_record(sae) for sae in opened.saes.values()], at=AT)
    documents = open_documents(context, task, task.text, opened.loaded, at=AT, name="text").require(task.documents)
    materials = _materials(context, task, opened, documents, {layer: list(found) for layer, found in wanted.items()})
    explained = _by_server(context, task, materials, server) if server else _offline(task, materials)
    for one in explained:
        if not one.shown:
            context.warning(f"{one.layer}/{one.feature} fires nowhere in the {len(documents):,} documents: no label.")
        elif not one.n_silent:
            context.warning(f"{one.layer}/{one.feature} is silent nowhere: its label cannot be scored.")
    _write(context, task, opened, given, explained)


def _server(context: RunContext, task: ExplainFeatures) -> ChatServer | None:
    if task.writer != LABEL_WRITER_ENDPOINT:
        return None
    ledger = Ledger(context.artifacts / ANSWERS)
    if ledger.damaged:
        context.warning(f"{ledger.damaged:,} damaged lines in {ANSWERS} are passed over; they are asked for again.")
    if len(ledger):
        context.info(f"{len(ledger):,} answers of the endpoint are kept from before")
    return ChatServer(task.endpoint, at=f"{AT}.endpoint", ledger=ledger, should_stop=lambda: context.stop_requested)


def _materials(
    context: RunContext,
    task: ExplainFeatures,
    opened: Opened,
    documents: Sequence[Document],
    wanted: Mapping[int, Sequence[int]],
) -> list[Material]:
    """Contexts and silent windows of every feature, from documents the writer sees and from others."""
    halves = split(documents, 0.5, context.seed_for("held-out"))
    context.info(
        f"{len(halves.ranking):,} documents to explain from, {len(halves.held_out):,} others to score on"
        + (f" ({halves.duplicates:,} duplicates left out)" if halves.duplicates else "")
    )
    seen = _collect(context, task, opened, halves.ranking, wanted, task.shown, task.shown, "finding contexts")
    held_out = _collect(
        context, task, opened, halves.held_out, wanted, _DEPTH * task.tested, task.tested, "finding held-out contexts"
    )
    offline = context.experiment.model_options.offline
    # Of the decoders only a few rows are needed, and nothing else reads those alone.
    stored = StoredSaes(opened.place, opened.loaded, offline=offline, tell=context.info, at=f"{AT}.sae")
    materials = []
    for layer, features in wanted.items():
        promotes = promoted_tokens(opened.loaded, stored.directions(layer, features), task.label_tokens)
        for index, feature in enumerate(features):
            contexts, silent = seen[layer, feature]
            active, still = held_out[layer, feature]
            materials.append(
                Material(
                    layer,
                    feature,
                    contexts,
                    silent,
                    spread_over(active.contexts, task.tested),
                    still,
                    promotes[index],
                )
            )
    return materials


def _collect(
    context: RunContext,
    task: ExplainFeatures,
    opened: Opened,
    documents: Sequence[Document],
    wanted: Mapping[int, Sequence[int]],
    active: int,
    silent: int,
    phase: str,
) -> dict[tuple[int, int], tuple[FeatureContexts, list[FeatureContext]]]:
    """For each feature its strongest contexts and some silent windows, from one pass over the documents."""
    both = {
        layer: [
            _Both(
                TopContexts(part, active, task.before, task.after),
                SilentContexts(part, silent, task.before, task.after, context.seed_for("silent")),
            )
            for part in in_slices(features)
        ]
        for layer, features in wanted.items()
    }
    on_progress, should_stop = watch(context, phase, len(documents))
    left_out = contexts_of_text(
        opened.loaded,
        opened.saes,
        documents,
        both,
        batch_tokens=task.model_batch_tokens,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if left_out is None:
        context.stop(0)
    warn_not_finite(context, left_out)
    found = {}
    for layer, pair in ((layer, pair) for layer, parts in both.items() for pair in parts):
        tokenizer = opened.loaded.tokenizer
        windows = pair.silent.results(layer, tokenizer)
        for one, still in zip(pair.top.results(layer, tokenizer), windows, strict=True):
            found[layer, one.feature] = one, list(still.contexts)
    return found


class _Both:
    """Collects contexts and silent windows from the same activations."""

    def __init__(self, top: TopContexts, silent: SilentContexts) -> None:
        self.top, self.silent, self.features = top, silent, top.features

    def add(self, *batch) -> None:
        self.top.add(*batch)
        self.silent.add(*batch)


def _offline(task: ExplainFeatures, materials: Sequence[Material]) -> list[Explanation]:
    """Labels from tokens; a window is said to be active when it holds one the feature fires on."""
    rules = [firing_tokens(one.seen.contexts, one.seen_silent, task.label_tokens) for one in materials]
    explained = []
    for index, (material, rule) in enumerate(zip(materials, rules, strict=True)):
        one = _explanation(material, offline_label(rule, material.promotes) if rule else "", rule)
        _score(one, _by_rule(material, rule))
        foreign = _foreign(materials, index)
        if foreign is not None and rules[foreign]:
            accuracy = _by_rule(material, rules[foreign]).balanced_accuracy
            if not math.isnan(accuracy):
                one.foreign_accuracy = accuracy
        explained.append(one)
    return explained


def _foreign(materials: Sequence[Material], index: int) -> int | None:
    """Another feature whose label is tried on this one's windows: the next of the same layer, else the next of all."""
    others = [*range(index + 1, len(materials)), *range(index)]
    same = [other for other in others if materials[other].layer == materials[index].layer]
    return next(iter([*same, *others]), None)


def _by_rule(material: Material, rule: Sequence[str]) -> Detection:
    chosen = set(rule)
    return Detection(
        [bool(chosen & tokens_of(window)) for window in material.active],
        [bool(chosen & tokens_of(window)) for window in material.silent],
    )


def _by_server(
    context: RunContext, task: ExplainFeatures, materials: Sequence[Material], server: ChatServer
) -> list[Explanation]:
    """Labels and verdicts of a language model."""
    known = [one for one in materials if one.seen.contexts]
    try:
        with server:
            answers = server.ask_all(
                [writer_question(one.seen.contexts, one.promotes) for one in known],
                on_answer=lambda done: context.progress("writing labels", done, len(known), "labels"),
            )
            labels = {(one.layer, one.feature): label_of(answer) for one, answer in zip(known, answers, strict=True)}
            questions, owners = _judge_questions(context, known, labels)
            said = server.ask_all(
                questions,
                on_answer=lambda done: context.progress("scoring labels", done, len(questions), "questions"),
            )
    except Stopped:
        context.stop(0)
    path = context.artifacts / ANSWERS
    if path.exists():
        context.artifact(path, kind="answers", description=f"answers of {task.endpoint.model} to {len(known)} features")
    answered: dict[tuple[int, int], tuple[list[bool | None], list[bool | None]]] = {}
    for answer, (key, kinds) in zip(said, owners, strict=True):
        active, silent = answered.setdefault(key, ([], []))
        for verdict, is_active in zip(verdicts(answer, len(kinds)), kinds, strict=True):
            (active if is_active else silent).append(verdict)
    explained = []
    for material in materials:
        key = (material.layer, material.feature)
        rule = firing_tokens(material.seen.contexts, material.seen_silent, task.label_tokens)
        one = _explanation(material, labels.get(key, ""), rule)
        if key in answered:
            _score(one, Detection(*answered[key]))
        explained.append(one)
    return explained


def _judge_questions(
    context: RunContext, materials: Sequence[Material], labels: Mapping[tuple[int, int], str]
) -> tuple[list[tuple[str, str]], list[tuple[tuple[int, int], list[bool]]]]:
    """Excerpts in mixed order, a few a question; beside each question its feature and which excerpts are active."""
    questions, owners = [], []
    for material in materials:
        key = (material.layer, material.feature)
        if not labels[key]:
            continue
        windows = [(one.text, True) for one in material.active] + [(one.text, False) for one in material.silent]
        random.Random(context.seed_for(f"judge {key}")).shuffle(windows)
        for start in range(0, len(windows), EXCERPTS):
            part = windows[start : start + EXCERPTS]
            questions.append(judge_question(labels[key], [text for text, _ in part]))
            owners.append((key, [is_active for _, is_active in part]))
    return questions, owners


def _explanation(material: Material, label: str, rule: Sequence[str]) -> Explanation:
    return Explanation(
        layer=material.layer,
        feature=material.feature,
        label=label,
        fires_on=rule,
        promotes=material.promotes,
        rate=material.seen.rate,
        max_activation=material.seen.max_activation,
        shown=material.seen.contexts,
    )


def _score(one: Explanation, found: Detection) -> None:
    one.n_active, one.n_silent, one.unanswered = found.n_active, found.n_silent, found.unanswered
    for name in ("recall", "specificity", "balanced_accuracy", "low", "high"):
        value = getattr(found, name)
        if one.label and not math.isnan(value):
            setattr(one, name, value)


def _write(
    context: RunContext,
    task: ExplainFeatures,
    opened: Opened,
    given: FeatureSet | None,
    explained: Sequence[Explanation],
) -> None:
    found = ExplanationSet(
        model=opened.loaded.facts.name,
        sae=opened.place,
        writer=task.endpoint.model if task.writer == LABEL_WRITER_ENDPOINT else "offline",
        explanations=explained,
        model_record=model_record(opened.loaded.facts),
        sae_records=[sae_record(sae) for sae in opened.saes.values()],
        tokens=tokens_text(task),
        qscope_version=__version__,
    )
    path = context.artifacts / "explanations.json"
    write_message(path, found)
    context.artifact(path, kind="explanations", description=f"labels of {len(explained)} features")
    if given:
        labels = {(one.layer, one.feature): one.label for one in explained if one.label}
        for entry in given.entries:
            entry.label = labels.get((entry.layer, entry.feature), entry.label)
        path = save_features(given, context.artifacts)
        context.artifact(path, kind="features", description=f"{len(given.entries)} features with their labels")
    context.report(explanation_report(context.experiment.name, found))
    context.info("\n".join(explanation_lines(explained)))
