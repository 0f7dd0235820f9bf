"""What ``qscope synthesize`` reads before anything is written: texts, wanted features, and those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from qscope.data.items import Benchmark
from qscope.errors import UserError
from qscope.features.chat_server import ChatServer, Question
from qscope.features.encoders import sae_layers, sae_record
from qscope.features.files import EXPLANATIONS, load_explanations, refuse_other_sae
from qscope.features.files import NAME as FEATURES
from qscope.recipes.feature_parts import OfLayers, Opened, feature_set_of, open_model, refuse_unknown, wanted_features
from qscope.recipes.shared import pin_revision, pinned, place_of_saes, run_or_path
from qscope.runs import RunContext
from qscope.synthesis.contexts import Excerpts, StrongestPlaces, contexts_of
from qscope.synthesis.coverage import TargetSet
from qscope.synthesis.fired import FiredReader, FiringCounts
from qscope.synthesis.judges import ask_until
from qscope.synthesis.questions import relevance_of, relevance_question
from qscope.synthesis.rows import read_rows
from qscope.synthesis.targets import Target, missing_targets, named_targets, reference_targets
from qscope.v1.explain_pb2 import ExplanationSet
from qscope.v1.features_pb2 import FeatureSet
from qscope.v1.redundancy_pb2 import BAD_ROWS_REFUSE
from qscope.v1.synthesize_pb2 import SynthesisTargets, Synthesize

AT = "synthesize"


@dataclass
class Material:
    """What was read before anything is written.

    Attributes:
        seeds: texts of the seed data set.
        seed_counts: in how many of them each feature fires.
        targets: the wanted features.
        missing: places of those that are written for.
        ids: tokens of the texts that excerpts are taken from.
    """

    seeds: Sequence[str]
    seed_counts: FiringCounts
    targets: list[Target]
    missing: list[int]
    ids: list[np.ndarray] = field(repr=False)

    def target_set(self) -> TargetSet:
        """The targets, and which of them the seed data set covers."""
        return TargetSet.of(
            [target.key for target in self.targets],
            [self.seed_counts.of(target.layer, target.feature) > 0 for target in self.targets],
        )


def read_source(context: RunContext, task: Synthesize, name: str) -> Benchmark | None:
    """The texts of ``seed_data``, ``reference`` or ``natural``; None where the experiment names none."""
    refuse, source = task.bad_rows == BAD_ROWS_REFUSE, getattr(task, name)
    pin_revision(context, source, f"{AT}.{name}")
    found = read_rows(source, name, refuse_faults=refuse, at=f"{AT}.{name}")
    if found is None:
        return None
    context.info(f"{name}: {len(found.items):,} texts, {found.template}")
    if found.faults:
        fault = found.faults[0]
        context.warning(
            f"{name}: {len(found.faults):,} rows left out, listed in artifacts/faults.csv; "
            f"the first: {fault.place}: {fault.why}."
        )
    return found


@dataclass(frozen=True)
class Named:
    """The targets that an experiment names: their files, and the features by layer."""

    feature_set: FeatureSet | None
    explanations: ExplanationSet | None
    targets: list[Target]

    @property
    def wanted(self) -> dict[int, dict[int, str]]:
        found: dict[int, dict[int, str]] = {}
        for target in self.targets:
            found.setdefault(target.layer, {})[target.feature] = target.label
        return dict(sorted(found.items()))


def named_in(context: RunContext, task: Synthesize) -> Named | None:
    """None where nothing is named: then the reference says what is wanted."""
    wanted = _pinned(context, task)
    if not (wanted.features or wanted.feature_set or wanted.explanations):
        return None
    feature_set = feature_set_of(wanted, context.folder.parent, at=f"{AT}.targets")
    explanations = None
    if wanted.explanations:
        explanations = load_explanations(wanted.explanations, field=f"{AT}.targets.explanations")
    else:
        # An empty set of features alone is told of as what it is.
        wanted_features(wanted, feature_set, at=f"{AT}.targets")
    targets = named_targets(
        list(wanted.features),
        feature_set,
        explanations,
        min_score=wanted.min_score,
        words=list(wanted.words),
    )
    if not targets:
        raise UserError(
            "No feature is left: none of those named has a label as good as asked for, or with one of the words.",
            remedy=f"Lower {AT}.targets.min_score, or name other words.",
            reason="NO_TARGETS",
            field=f"{AT}.targets",
        )
    return Named(feature_set, explanations, targets)


def _pinned(context: RunContext, task: Synthesize) -> SynthesisTargets:
    """The targets with the runs they name turned into folders: those that the first attempt of the run found."""
    targets, runs = SynthesisTargets(), context.folder.parent
    targets.CopyFrom(task.targets)
    for name, holds in (("feature_set", FEATURES), ("explanations", EXPLANATIONS)):
        if given := getattr(targets, name):
            find = partial(run_or_path, given, runs, holds)
            setattr(targets, name, str(pinned(context, f"{AT}.targets.{name}", find)))
    return targets


def open_layers(context: RunContext, task: Synthesize, named: Named | None) -> Opened:
    """The model and the SAEs of the layers that are looked at; refuses targets that no SAE has, or another one."""
    layers = list(named.wanted) if named else list(task.layers)
    field_at = f"{AT}.sae"
    place = pinned(context, field_at, lambda: place_of_saes(task.sae, context.folder.parent, at=field_at))
    if named and (unknown := sorted(set(layers) - set(sae_layers(place)))):
        raise UserError(
            f"There is no SAE of layer {unknown[0]}.",
            remedy=f"Layers are {', '.join(map(str, sae_layers(place)))}.",
            reason="SAE_LAYER_MISSING",
            field=f"{AT}.targets",
        )
    opened = open_model(context, OfLayers(task, layers), at=AT)
    if named:
        saes = [sae_record(sae) for sae in opened.saes.values()]
        refuse_unknown(task.targets, named.feature_set, named.wanted, saes, at=f"{AT}.targets")
        for sae in saes if named.explanations else ():
            refuse_other_sae(
                named.explanations,
                sae.layer,
                sae.fingerprint,
                path=task.targets.explanations,
                field=f"{AT}.targets.explanations",
            )
    return opened


def read_material(
    context: RunContext,
    task: Synthesize,
    opened: Opened,
    reader: FiredReader,
    rows: dict[str, Benchmark | None],
    named: Named | None,
    server: ChatServer | None,
) -> Material:
    """Which features the seed texts and the reference fire, which are wanted, and which of them are missing."""
    widths = {layer: sae.d_sae for layer, sae in opened.saes.items()}
    counts = {name: FiringCounts(widths) for name in ("seed_data", "reference")}
    places, ids = StrongestPlaces(task.shown), {name: [] for name in counts}
    for name, count in counts.items():
        texts = texts_of(rows[name])
        told = progress_of(context, f"reading {name.removesuffix('_data')}", len(texts))
        for number, fired in enumerate(reader.stream(texts, told)):
            count.add(fired)
            if name == "reference":
                places.add(number, fired)
            # Excerpts come from the reference; without one, those at random come from the seed texts.
            if name == "reference" or rows["reference"] is None:
                ids[name].append(fired.ids_T)
    wanted = task.targets
    if named:
        targets = named.targets
        if wanted.topic:
            targets = _relevant(context, task, targets, server)
        targets = targets[: wanted.limit] if wanted.limit else targets
    else:
        targets = reference_targets(
            counts["reference"],
            min_texts=wanted.min_texts,
            max_share=wanted.max_share,
            limit=wanted.limit,
            seed=context.seed_for("targets"),
        )
        if not targets:
            raise UserError(
                "No feature fires in as many, and in as few, of the reference texts as asked for.",
                remedy=f"Name more reference texts, lower {AT}.targets.min_texts, or raise {AT}.targets.max_share.",
                reason="NO_TARGETS",
                field=f"{AT}.reference",
            )
    missing = missing_targets(targets, counts["seed_data"], wanted.weak_share)
    lacking = [targets[place].key for place in missing if not targets[place].contexts]
    excerpts = Excerpts(opened.loaded.tokenizer, before=task.before, after=task.after)
    found = contexts_of(places.of(lacking), ids["reference"], excerpts)
    targets = [replace(target, contexts=target.contexts or tuple(found.get(target.key, ()))) for target in targets]
    shown = ids["reference"] or ids["seed_data"]
    return Material(texts_of(rows["seed_data"]), counts["seed_data"], targets, missing, shown)


def _relevant(context: RunContext, task: Synthesize, targets: list[Target], server: ChatServer | None) -> list[Target]:
    """The targets whose label the endpoint finds relevant to the topic; others have no label to judge."""
    labelled = [target for target in targets if target.label]
    if server is None:
        raise UserError(
            "Relevance to a topic is judged by the endpoint, and there is none.",
            remedy="Set writer: endpoint, or leave targets.topic out.",
            reason="NO_JUDGE",
            field=f"{AT}.targets.topic",
        )
    told = progress_of(context, "judging relevance", len(labelled))

    def ask(places: Sequence[int], number: int) -> list[float | None]:
        asked = [Question(*relevance_question(task.targets.topic, labelled[at].label), number=number) for at in places]
        done = len(labelled) - len(places)
        return [relevance_of(one.text) for one in server.answer_all(asked, lambda count: told(done + count))]

    scores = ask_until(len(labelled), task.attempts, ask, lambda score: score is not None, None)
    judged = [
        replace(target, relevance=score) for target, score in zip(labelled, scores, strict=True) if score is not None
    ]
    if len(judged) < len(targets):
        context.warning(f"{len(targets) - len(judged):,} features have no label, or no relevance that was understood.")
    kept = [target for target in judged if target.relevance >= task.targets.relevance]
    if not kept:
        raise UserError(
            f"None of {len(targets):,} features is relevant enough to '{task.targets.topic}'.",
            remedy=f"Lower {AT}.targets.relevance, or name another topic.",
            reason="NO_TARGETS",
            field=f"{AT}.targets.topic",
        )
    return sorted(kept, key=lambda target: -target.relevance)


def texts_of(rows: Benchmark | None) -> list[str]:
    """The texts of a source; none of one that is not named."""
    return [item.prompt for item in rows.items] if rows is not None else []


def progress_of(context: RunContext, phase: str, total: int) -> Callable[[int], None]:
    """Tells how many texts of a phase are done."""
    return lambda done: context.progress(phase, done, total, "texts")
