"""From the experiment of ``qscope sft`` to what its trainer takes: rows with languages, and the arm's term."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from qscope.features.encoders import load_encoders, sae_record
from qscope.features.files import NAME, load_features, save_features
from qscope.models import LoadedModel
from qscope.posttraining.answer_head import add_answer_head
from qscope.posttraining.dead_signal import refuse_nothing_held
from qscope.posttraining.examples import Example, Examples
from qscope.posttraining.foreign_tokens import foreign_tokens
from qscope.posttraining.held_features import Threshold, held_features, language_ids, loss_layers, refuse_other_model
from qscope.posttraining.random_features import Answers, random_features
from qscope.posttraining.sae_loss import UNTAGGED, FeatureReduction, Normalisation, SaeLoss
from qscope.posttraining.sft_terms import EntropyTerm, KlTerm, SaeTerm, Term, TokenProbabilityTerm
from qscope.posttraining.switch_filter import without_switches
from qscope.recipes.feature_parts import language_run
from qscope.recipes.shared import pinned, place_of_saes, warn_of_misfit
from qscope.runs import RunContext
from qscope.sae.topk import TopKSae
from qscope.text.scripts import SCRIPTS_OF
from qscope.v1.features_pb2 import FeatureSet
from qscope.v1.posttraining_pb2 import FEATURE_REDUCTION_SUM, FEATURE_THRESHOLD_ZERO, TRAIN_METHOD_LORA
from qscope.v1.sft_pb2 import (
    SAE_LOSS_PRESET_OFFICIAL_CODE,
    SFT_ARM_ENTROPY,
    SFT_ARM_FILTER,
    SFT_ARM_KL,
    SFT_ARM_PLAIN,
    SFT_ARM_RANDOM_FEATURES,
    SFT_ARM_SAE,
    SFT_ARM_TOKEN_PROBABILITY,
    Sft,
)
from qscope.v1.sft_pb2 import SaeLoss as SaeLossOptions

AT = "sft.sae_loss"
#: What an arm weighs where the experiment does not say.
ARM_WEIGHTS = {SFT_ARM_KL: 0.1, SFT_ARM_ENTROPY: 0.01, SFT_ARM_TOKEN_PROBABILITY: 1.0}
ARM_WORDS = {
    SFT_ARM_SAE: "SAE loss",
    SFT_ARM_PLAIN: "plain",
    SFT_ARM_RANDOM_FEATURES: "random features",
    SFT_ARM_KL: "KL to the start",
    SFT_ARM_ENTROPY: "entropy bonus",
    SFT_ARM_FILTER: "filtered rows",
    SFT_ARM_TOKEN_PROBABILITY: "token probability",
}
#: Where the features of the arm random_features are kept: the draw is made once.
RANDOM = "random-features"


def arm_of(task: Sft) -> int:
    """The arm; without an SAE loss the arm ``sae`` is plain SFT."""
    return SFT_ARM_PLAIN if task.arm == SFT_ARM_SAE and not task.HasField("sae_loss") else task.arm


def needs_languages(task: Sft) -> bool:
    """Whether the arm looks at the language of rows, so that those without one are worth tagging."""
    return arm_of(task) in (SFT_ARM_SAE, SFT_ARM_RANDOM_FEATURES, SFT_ARM_FILTER, SFT_ARM_TOKEN_PROBABILITY)


@dataclass
class Arm:
    """What an arm makes of the rows, and what it adds to the loss.

    Attributes:
        rows: to train on.
        languages: names that the indices stand for.
        ids: index of the language of each row, UNTAGGED where the term leaves the row alone.
        term: beside the cross-entropy; None for none.
        record: for the training record.
    """

    rows: list[Example]
    languages: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    term: Term | None = None
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ids = self.ids or [UNTAGGED] * len(self.rows)


def make_arm(context: RunContext, task: Sft, loaded: LoadedModel, found: Examples) -> Arm:
    """The arm of an experiment. Call it before anything of the model is changed.

    Raises:
        UserError: what the parts of an arm refuse; nothing held down (NOTHING_HELD).
    """
    arm, weight = arm_of(task), task.arm_weight or ARM_WEIGHTS.get(task.arm, 0.0)
    if arm in (SFT_ARM_SAE, SFT_ARM_RANDOM_FEATURES):
        return _sae_arm(context, task, loaded, found.items, drawn=arm == SFT_ARM_RANDOM_FEATURES)
    if arm == SFT_ARM_ENTROPY:
        return Arm(found.items, term=EntropyTerm(weight), record={"weight": weight})
    if arm == SFT_ARM_KL:
        return Arm(found.items, record={"weight": weight})
    if arm == SFT_ARM_FILTER:
        left = without_switches(found.items, loaded.tokenizer, task.sae_loss.target_languages)
        dropped = sum(left.dropped.values())
        context.info(f"{dropped:,} of {len(found.items):,} rows switch and are left out")
        if left.unjudged:
            context.warning(f"{left.unjudged:,} rows are in no language whose script is known, and stay.")
        return Arm(left.kept, record={"dropped": dict(left.dropped), "unjudged": left.unjudged})
    if arm == SFT_ARM_TOKEN_PROBABILITY:
        return _token_arm(context, task, loaded, found.items, weight)
    return Arm(found.items)


def with_start(arm: Arm, task: Sft, model: nn.Module, start: nn.Module | None) -> None:
    """Gives the arm ``kl`` the model before training, once the model to train is made; others are left alone.

    Args:
        arm: changed in place.
        task: the experiment.
        model: to train.
        start: a frozen copy of it; None with adapters, which are switched off instead.
    """
    if arm_of(task) != SFT_ARM_KL:
        return
    weight = arm.record["weight"]
    if start is not None:
        add_answer_head(start)
        arm.term = KlTerm(weight, start)
    else:
        arm.term = KlTerm(weight, model, model.disable_adapter)


def frozen_start(task: Sft, loaded: LoadedModel) -> nn.Module | None:
    """A copy of the model before training, where the arm needs one and has no adapters to switch off."""
    if arm_of(task) != SFT_ARM_KL or task.trainable.method == TRAIN_METHOD_LORA:
        return None
    return copy.deepcopy(loaded.model).eval().requires_grad_(False)


def _sae_arm(context: RunContext, task: Sft, loaded: LoadedModel, rows: list[Example], *, drawn: bool) -> Arm:
    options, offline = task.sae_loss, context.experiment.model_options.offline
    runs = context.folder.parent
    named = Path(pinned(context, f"{AT}.features", partial(language_run, options.features, runs, at=f"{AT}.features")))
    found = load_features(named, field=f"{AT}.features")
    refuse_other_model(found, loaded.facts)
    layers = loss_layers(options.layers, loaded.facts.n_layers, {entry.layer for entry in found.entries})
    place = pinned(context, f"{AT}.sae", partial(place_of_saes, options.sae, runs, at=f"{AT}.sae"))
    saes = load_encoders(place, layers, loaded.facts, device=loaded.device, offline=offline, field=f"{AT}.sae")
    warn_of_misfit(context, place, layers, loaded, at=f"{AT}.sae")
    targets = list(options.target_languages)
    held, languages = _held(options, found, saes)
    ids = _ids(context, rows, languages)
    tagged = Counter(languages[index] for index in ids if index != UNTAGGED)
    if options.exclude_target:
        refuse_nothing_held(tagged, targets)
    if drawn:
        # Measured by one rank: on a GPU two would not agree to the last digit.
        found = context.ranks.first(partial(_drawn, context, loaded, rows, found, saes, options, languages))
        held, languages = _held(options, found, saes)
    official = options.preset == SAE_LOSS_PRESET_OFFICIAL_CODE
    loss = SaeLoss(
        held,
        weight=options.weight,
        feature_reduction=FeatureReduction.SUM
        if options.feature_reduction == FEATURE_REDUCTION_SUM
        else FeatureReduction.MEAN,
        normalisation=Normalisation.OFFICIAL_CODE if official else Normalisation.GLOBAL_TOKENS,
    )
    record = {
        "features": str(named),
        "sae": str(place),
        "targets": targets,
        "weight": options.weight,
        "rows_by_language": dict(tagged),
        "layers": [
            {
                "layer": part.rows.layer,
                "sae_fingerprint": sae_record(saes[part.rows.layer]).fingerprint,
                "features": list(part.rows.features),
                "target": [languages[index] for index in part.target_M.tolist()],
                "alpha": {name: part.alpha_GM[index].tolist() for index, name in enumerate(languages)},
            }
            for part in held
        ],
    }
    return Arm(rows, languages, ids, SaeTerm(loss), record)


def _held(options: SaeLossOptions, found: FeatureSet, saes: dict[int, TopKSae]) -> tuple[list, list[str]]:
    threshold = Threshold.ZERO if options.threshold == FEATURE_THRESHOLD_ZERO else Threshold.MEAN
    return held_features(
        found,
        saes,
        targets=list(options.target_languages),
        top_k=options.top_k,
        threshold=threshold,
        exclude_target=options.exclude_target,
    )


def _ids(context: RunContext, rows: Sequence[Example], languages: Sequence[str]) -> list[int]:
    """Indices of the rows' languages; one that a row gives must be known, one that it was tagged with need not."""
    codes = [None if row.tagged and row.language not in languages else row.language for row in rows]
    ids = language_ids(codes, languages)
    if left := ids.count(UNTAGGED):
        context.warning(
            f"{left:,} of {len(rows):,} rows are in no language with a threshold: the SAE loss leaves them alone."
        )
    return ids


def _drawn(
    context: RunContext,
    loaded: LoadedModel,
    rows: Sequence[Example],
    found: FeatureSet,
    saes: dict[int, TopKSae],
    options: SaeLossOptions,
    languages: Sequence[str],
) -> FeatureSet:
    """The stand-ins: drawn by the first attempt of a run, read by those that go on."""
    folder = context.artifacts / RANDOM
    if not (folder / NAME).exists():
        seed = context.seed_for("random features")
        made = random_features(
            found,
            Answers.sample(loaded, rows, seed=seed),
            saes,
            list(options.target_languages),
            options.top_k,
            languages,
            seed=seed,
            on_progress=lambda done, total: context.progress("measuring features", done, total, "rows"),
        )
        save_features(made, folder)
        context.artifact(folder / NAME, kind="features", description="features drawn for the control, by firing rate")
    return load_features(folder)


def _token_arm(context: RunContext, task: Sft, loaded: LoadedModel, rows: list[Example], weight: float) -> Arm:
    targets = list(task.sae_loss.target_languages)
    languages = sorted({row.language for row in rows if row.language in SCRIPTS_OF})
    ids = [languages.index(row.language) if row.language in languages else UNTAGGED for row in rows]
    if left := ids.count(UNTAGGED):
        context.warning(f"{left:,} of {len(rows):,} rows are in no language whose script is known, and are left alone.")
    refuse_nothing_held(Counter(row.language for row in rows if row.language in languages), targets)
    held_GV = foreign_tokens(loaded.tokenizer, rows, languages, targets, at=f"{AT}.target_languages")
    record = {
        "targets": targets,
        "weight": weight,
        "foreign_tokens": {name: int(count) for name, count in zip(languages, held_GV.sum(1), strict=True)},
    }
    return Arm(rows, languages, ids, TokenProbabilityTerm(weight, held_GV), record)
