"""From the experiment of ``qscope rl`` to what its trainer takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from qscope.errors import UserError
from qscope.features.files import NAME, load_features, refuse_other_sae
from qscope.models import LoadedModel, capture_residuals
from qscope.models.generation import context_length
from qscope.posttraining.advantages import Baseline, Std
from qscope.posttraining.alarms import Alarm
from qscope.posttraining.dapo import Clip, Ratio
from qscope.posttraining.examples import Prompt, Prompts, read_prompts
from qscope.posttraining.feature_rows import FeatureRows
from qscope.posttraining.groups import OnMiss, Source
from qscope.posttraining.importance import Importance, ImportanceMode
from qscope.posttraining.interactions import settings_of
from qscope.posttraining.loop_steering import best_features, named_features, steering_of
from qscope.posttraining.objective import Objective
from qscope.posttraining.random_features import draw_alike
from qscope.posttraining.rare_negatives import Policy
from qscope.posttraining.rewards import Overlong
from qscope.posttraining.rl_batch import padded
from qscope.posttraining.rl_step import StepSettings
from qscope.posttraining.rollouts import Request, Sampler, Steered
from qscope.posttraining.sae_penalty import SaePenalty, WatchedFeatures
from qscope.recipes.shared import pinned, place_of_saes, run_or_path
from qscope.runs import RunContext
from qscope.runs.files import read_json, write_json
from qscope.sae.topk import TopKSae
from qscope.steering.calibration import measure_activity, measure_scales
from qscope.steering.resolve import refuse_unknown
from qscope.steering.saes import StoredSaes
from qscope.v1 import steering_pb2
from qscope.v1.posttraining_pb2 import Alarms, TrainRows
from qscope.v1.rl_pb2 import (
    OVERLONG_MODE_FILTER,
    OVERLONG_MODE_SOFT,
    RARE_NEGATIVE_SOURCE_PASTED,
    RARE_NEGATIVE_SOURCE_RANDOM_FEATURES,
    SAE_PENALTY_MODE_RARE_NEGATIVE,
    SAE_PENALTY_MODE_REWARD,
    FeaturePenalty,
    RareNegative,
    Rl,
)

AT = "rl"
RARE, PENALTY = f"{AT}.sae_penalty.rare_negative", f"{AT}.sae_penalty.reward"
#: Features that stand in for the named ones, and thresholds: found by the first attempt of a run.
CONTROL, THRESHOLDS = "control-features.json", "thresholds.json"
#: Of a model whose config does not say how many tokens it reads.
_NO_LIMIT = 1 << 30


def prompts_of(rows: TrainRows, task: Rl, tokenizer: object, context: int, max_tokens: int, *, at: str) -> Prompts:
    """Prompts that leave room for an answer in the model's context.

    Args:
        rows: the source.
        task: says how prompts are rendered.
        tokenizer: of the model.
        context: tokens the model reads; 0 where that is not known.
        max_tokens: of an answer.
        at: experiment field of the source.

    Raises:
        UserError: an answer leaves no room for a prompt (CONTEXT_EXCEEDED), or see
            :func:`~qscope.posttraining.examples.read_prompts`.
    """
    room = context - max_tokens if context else _NO_LIMIT
    if room < 1:
        raise UserError(
            f"{max_tokens:,} generated tokens leave no room for a prompt in the model's {context:,} positions.",
            remedy=f"Generate fewer than {context:,} tokens.",
            reason="CONTEXT_EXCEEDED",
            field=f"{AT}.sampling.max_tokens",
        )
    return read_prompts(rows, tokenizer, task.format, context=room, at=at)


def training_prompts(task: Rl, loaded: LoadedModel) -> Prompts:
    """The prompts that rollouts answer."""
    limit = context_length(loaded)
    return prompts_of(task.prompts, task, loaded.tokenizer, limit, task.sampling.max_tokens, at=f"{AT}.prompts")


def objective_of(task: Rl) -> Objective:
    """What the gradient is of."""
    said, rare = settings_of(task), task.sae_penalty.rare_negative
    return Objective(
        Clip(task.epsilon_low, task.epsilon_high, task.dual_clip or None),
        Ratio(said["sae_penalty"]["rare_negative"]["ratio"]) if has_negatives(task) else Ratio.UNSTEERED,
        Importance(ImportanceMode(said["importance_correction"]["mode"]), task.importance_correction.cap),
        rare.min_token_prob if has_negatives(task) else 0.0,
    )


def step_settings(task: Rl, ranks: int) -> StepSettings:
    """How a step is made up on each rank."""
    said = settings_of(task)
    baseline = Baseline(said["sae_penalty"]["rare_negative"]["advantage"]) if has_negatives(task) else Baseline.JOINT
    return StepSettings(
        task.prompts_per_step // ranks,
        baseline,
        Std(said["advantage_std"]),
        task.overlong.mode == OVERLONG_MODE_FILTER,
        task.dynamic_sampling.max_rounds if task.dynamic_sampling.enabled else 0,
    )


def overlong_of(task: Rl) -> Overlong | None:
    """The soft penalty, None where there is none."""
    if task.overlong.mode != OVERLONG_MODE_SOFT:
        return None
    longest = task.sampling.max_tokens
    return Overlong(longest, task.overlong.cache or longest // 5)


def has_negatives(task: Rl) -> bool:
    """Whether groups hold rare negatives."""
    return task.sae_penalty.mode == SAE_PENALTY_MODE_RARE_NEGATIVE


def has_penalty(task: Rl) -> bool:
    """Whether features cost reward."""
    return task.sae_penalty.mode == SAE_PENALTY_MODE_REWARD


def policy_of(task: Rl) -> Policy:
    """When rare negatives are made, and how."""
    rare = task.sae_penalty.rare_negative
    said = settings_of(rare)
    return Policy(
        rare.per_group,
        Source(said["source"]),
        OnMiss(said["on_miss"]),
        min(rare.max_tokens or task.sampling.max_tokens, task.sampling.max_tokens),
        rare.stop_after_loops,
        rare.warmup_steps,
        rare.stop_below,
        0.0 if rare.source == RARE_NEGATIVE_SOURCE_PASTED else rare.strength,
        tuple(rare.calibrate.strengths),
        rare.calibrate.loop_rate,
        rare.calibrate.floor,
        rare.calibrate.every_steps,
    )


def named(
    task: RareNegative | FeaturePenalty, find: Callable[[], Path], saes: StoredSaes, n_layers: int, *, at: str
) -> dict[int, list[int]]:
    """The features of a group of the experiment, by layer; they exist, and belong to the SAEs in use.

    Raises:
        UserError: LAYER_OUT_OF_RANGE, FEATURE_OUT_OF_RANGE, FEATURES_OF_ANOTHER_SAE, or what feature files raise.
    """
    if task.features:
        chosen = named_features(task.features)
    else:
        place = find()
        found = load_features(place, field=f"{at}.feature_set")
        chosen = best_features(found, task.top_k, at=at)
        for layer in chosen:
            fingerprint = saes.fingerprint(layer)
            refuse_other_sae(found, layer, fingerprint, path=str(place), field=f"{at}.feature_set")
    edits = [steering_pb2.SteeringEdit(layers=[layer], features=features) for layer, features in chosen.items()]
    try:
        refuse_unknown(steering_pb2.SteeringSpec(edits=edits), n_layers=n_layers, saes=saes)
    except UserError as error:
        if error.reason not in ("LAYER_OUT_OF_RANGE", "FEATURE_OUT_OF_RANGE"):
            raise
        raise UserError(error.message, remedy=error.remedy, reason=error.reason, field=f"{at}.features") from None
    return chosen


class Steering:
    """Steering by the named features, or by those that stand in for them, at any strength.

    Everything is measured on the model as it is when this is made: before training, also in a run that goes on.

    Args:
        context: of the run.
        task: the experiment.
        loaded: the model before training.
    """

    def __init__(self, context: RunContext, task: Rl, loaded: LoadedModel) -> None:
        rare = task.sae_penalty.rare_negative
        self._loaded, self._loops = loaded, rare.stop_after_loops
        self.saes = saes_of(context, task, loaded)
        find = partial(_pinned_set, context, rare, RARE)
        self.chosen = named(rare, find, self.saes, loaded.facts.n_layers, at=RARE)
        self.norms = measure_scales(loaded, list(self.chosen), [], self.saes).median_norm
        self.control: dict[int, list[int]] | None = None
        if rare.source == RARE_NEGATIVE_SOURCE_RANDOM_FEATURES:
            self.control = self._drawn(context)
        self.at = lru_cache(maxsize=64)(partial(self._at, self.chosen))
        self.control_at = lru_cache(maxsize=64)(partial(self._at, self.control or {}))

    def record(self) -> list[dict[str, object]]:
        """What steers, for the training record: by layer, and by which SAE."""
        return [
            {
                "layer": layer,
                "features": features,
                "drawn_instead": self.control[layer] if self.control else None,
                "median_norm": float(self.norms[layer]),
                "sae_fingerprint": self.saes.fingerprint(layer),
            }
            for layer, features in self.chosen.items()
        ]

    def _at(self, chosen: dict[int, list[int]], strength: float) -> Steered:
        return Steered(
            steering_of(self._loaded, self.saes, chosen, strength, self.norms, at=RARE), self.saes, self._loops
        )

    def _drawn(self, context: RunContext) -> dict[int, list[int]]:
        path = context.artifacts / CONTROL
        kept = read_json(path)
        if kept is None:
            kept = {str(layer): self._alike(context, layer) for layer in self.chosen}
            if context.ranks.is_first:
                write_json(path, kept)
                context.artifact(path, kind="features", description="random features of the control, by firing rate")
        return {int(layer): [row["feature"] for row in rows] for layer, rows in kept.items()}

    def _alike(self, context: RunContext, layer: int) -> list[dict[str, float]]:
        activity = measure_activity(self._loaded, self.saes.whole(layer))
        assert activity is not None, "nobody asks it to stop"
        rate_F, features = activity.rate_F.double(), self.chosen[layer]
        # A feature that never fires has a direction nobody trained.
        silent = (rate_F == 0).nonzero()[:, 0].tolist()
        drawn = draw_alike(rate_F, features, silent, seed=context.seed_for(f"control features {layer}"))
        return [
            {"feature": one, "rate": float(rate_F[one]), "instead_of": of, "its_rate": float(rate_F[of])}
            for of, one in zip(features, drawn, strict=True)
        ]


def saes_of(context: RunContext, task: Rl, loaded: LoadedModel) -> StoredSaes:
    """The SAEs the experiment names."""
    field = f"{AT}.sae_penalty.sae"
    place = pinned(context, field, lambda: place_of_saes(task.sae_penalty.sae, context.folder.parent, at=field))
    offline = context.experiment.model_options.offline
    return StoredSaes(place, loaded, offline=offline, tell=context.info, warn=context.warning, at=field)


def _pinned_set(context: RunContext, task: RareNegative | FeaturePenalty, at: str) -> Path:
    field = f"{at}.feature_set"
    # Loops are steered by features of loops; what costs reward may be any.
    verb = "features repetition" if isinstance(task, RareNegative) else ""
    find = partial(run_or_path, task.feature_set, context.folder.parent, NAME, verb=verb, at=field)
    return Path(pinned(context, field, find))


def penalty_of(
    context: RunContext, task: Rl, loaded: LoadedModel, prompts: list[Prompt], sampler: Sampler
) -> SaePenalty:
    """Features that cost reward above their mean on rollouts before training."""
    options = task.sae_penalty.reward
    saes = saes_of(context, task, loaded)
    find = partial(_pinned_set, context, options, PENALTY)
    chosen = named(options, find, saes, loaded.facts.n_layers, at=PENALTY)
    wholes: dict[int, TopKSae] = {layer: saes.whole(layer) for layer in chosen}
    rows = {layer: FeatureRows.of(wholes[layer], chosen[layer], field=f"{PENALTY}.features") for layer in chosen}
    path = context.artifacts / THRESHOLDS
    kept = read_json(path)
    if kept is None:
        drawn = np.random.default_rng(context.seed_for("threshold prompts")).permutation(len(prompts))
        picked = [prompts[number] for number in drawn[: options.threshold_rows]]
        requests = [Request(one.ids, context.seed_for(f"threshold {one.row}")) for one in picked]
        context.info(f"measuring thresholds on {len(picked):,} rollouts")
        pairs = [(one.ids, made.ids) for one, made in zip(picked, sampler(requests), strict=True)]
        kept = {str(layer): mean for layer, mean in _means(loaded, rows, pairs).items()}
        if context.ranks.is_first:
            write_json(path, kept)
            context.artifact(path, kind="thresholds", description="mean pre-activations on rollouts before training")
    watched = [WatchedFeatures(rows[layer], torch.tensor(kept[str(layer)])) for layer in sorted(chosen)]
    return SaePenalty(watched, weight=options.weight)


def _means(
    loaded: LoadedModel, rows: dict[int, FeatureRows], pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> dict[int, list[float]]:
    """Mean pre-activation of each feature over generated tokens."""
    totals = {layer: torch.zeros(len(part.features), dtype=torch.float64) for layer, part in rows.items()}
    count = 0
    for start in range(0, len(pairs), 8):
        batch = padded(pairs[start : start + 8])
        resids = capture_residuals(loaded, sorted(rows), batch.ids_BT, batch.valid_BT)
        count += int(batch.generated_BT.sum())
        for layer, part in rows.items():
            u_NM = part.pre_activations(resids[layer])[batch.generated_BT.to(loaded.device)]
            totals[layer] += u_NM.double().sum(0).cpu()
    return {layer: (total / max(1, count)).tolist() for layer, total in totals.items()}


def alarms_of(alarms: Alarms) -> list[Alarm]:
    """The alarms of a run, in words."""
    said = {
        "dead_signal": (
            "No steered rollout is a verified loop, so rare negatives teach nothing",
            "Take other features or more strength, or let the strength be found (calibrate).",
        ),
        "zero_reward_std": (
            "The normal rollouts of every group have equal rewards, so nothing is learnt from them",
            "Take easier or harder prompts, raise group_size or the temperature, or set dynamic_sampling.enabled.",
        ),
        "all_truncated": (
            "Every normal rollout is cut off at its limit",
            "Raise sampling.max_tokens, or begin with a model that ends its answers.",
        ),
        "collapse": (
            "The model collapses",
            "Lower optimizer.learning_rate, set advantage: separate or a min_token_prob.",
        ),
        "grader_failures": (
            "More rollouts than grader_failure_share could not be graded",
            "Mend the grader, or raise graders.seconds.",
        ),
    }
    return [
        Alarm(name, getattr(alarms, name), alarms.patience, message, remedy) for name, (message, remedy) in said.items()
    ]
