"""Stock features of reinforcement learning that break rare negatives, each as a row: when, what goes wrong, what to do.

A rare negative is unlikely, endless, truncated and always wrong. Much of what keeps ordinary training sound takes such
a rollout for a fault and drops it, without a word: the run goes on and learns nothing from it. So every row is asked
before a run.

Settings are the experiment as nested mappings with its defaults filled in: names of fields and of choices as a YAML
file has them. A row applies when all its conditions hold; none applies without rare negatives. It *refuses*, *warns*,
or *exempts*: then the trainer must treat steered rollouts otherwise, and a trainer that cannot is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from qscope.errors import UserError

Settings = Mapping[str, Any]


class Exemption(StrEnum):
    """What a trainer does otherwise for steered rollouts."""

    #: The overlong filter keeps them, :func:`qscope.posttraining.overlong.overlong_filter`.
    OVERLONG_FILTER = "overlong_filter"
    #: Weights and masks for the gap between sampler and trainer pass them by.
    IMPORTANCE_CORRECTION = "importance_correction"
    #: Dynamic sampling does not look at them, :func:`qscope.posttraining.advantages.mixed_groups`.
    DYNAMIC_SAMPLING = "dynamic_sampling"
    #: Means of rewards and lengths leave them out; they have their own.
    METRICS = "metrics"
    #: They are sampled without repetition penalty and min_p.
    SAMPLING = "sampling"


class Outcome(Enum):
    """What a row does where it applies."""

    REFUSE = "refuse"
    WARN = "warn"
    EXEMPT = "exempt"


@dataclass(frozen=True)
class Where:
    """A condition on one field.

    Attributes:
        field: its path; what is not there is None.
        holds: asked of its value.
    """

    field: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Interaction:
    """One row.

    Attributes:
        stock: the feature of ordinary training.
        outcome: what the row does.
        reason: identifier of the refusal or warning.
        message: what goes wrong, one sentence; ``{value}`` stands for the first condition's value.
        remedy: what to do instead.
        when: conditions; the first one's field is the one at fault.
        exemption: of an outcome EXEMPT.
    """

    stock: str
    outcome: Outcome
    reason: str
    message: str
    remedy: str
    when: tuple[Where, ...]
    exemption: Exemption | None = None


def _is(path: str, *values: Any) -> Where:
    return Where(path, lambda found: found in values)


def _is_not(path: str, *values: Any) -> Where:
    return Where(path, lambda found: found not in values)


def _none(path: str) -> Where:
    return Where(path, lambda found: not found)


def _some(path: str) -> Where:
    return Where(path, bool)


def _rewarded(*names: str) -> Where:
    return Where("rl.rewards", lambda rewards: any(one.get("name") in names for one in rewards or ()))


def _not_rewarded(*names: str) -> Where:
    return Where("rl.rewards", lambda rewards: not any(one.get("name") in names for one in rewards or ()))


def _changes_sampling(path: str, neutral: float) -> Where:
    # Unset is not neutral: generation fills it in from the checkpoint's own generation_config.
    return Where(path, lambda found: found is None or found != neutral)


RARE_NEGATIVES = Where("rl.rare_negative.per_group", lambda found: bool(found) and found > 0)
"""Asked before every row."""

STEERED = _is_not("rl.rare_negative.source", "pasted")
"""Loops that are pasted as text are not generated: nothing has to be kept from hindering them, or verified."""

_SAMPLING = (
    ("repetition_penalty", 1.0),
    ("min_p", 0.0),
    ("no_repeat_ngram_size", 0),
    ("presence_penalty", 0.0),
    ("frequency_penalty", 0.0),
)

INTERACTIONS: tuple[Interaction, ...] = (
    Interaction(
        "overlong filter",
        Outcome.EXEMPT,
        "OVERLONG_FILTER_DROPS_RARE_NEGATIVES",
        "The overlong filter drops truncated rollouts, and an endless one is always truncated.",
        "Set rl.overlong.mode: soft, or use a trainer that exempts steered rollouts.",
        (_is("rl.overlong.mode", "filter"),),
        Exemption.OVERLONG_FILTER,
    ),
    Interaction(
        "importance correction",
        Outcome.EXEMPT,
        "IMPORTANCE_CORRECTION_DROPS_RARE_NEGATIVES",
        "The importance correction {value} weighs steered rollouts with almost nothing, or masks them.",
        "Set rl.importance_correction.mode: none, or use a trainer that exempts steered rollouts.",
        (_is_not("rl.importance_correction.mode", None, "none"), _is_not("rl.rare_negative.ratio", "behavior")),
        Exemption.IMPORTANCE_CORRECTION,
    ),
    Interaction(
        "importance correction",
        Outcome.REFUSE,
        "IMPORTANCE_CORRECTED_TWICE",
        "The importance correction {value} would weigh steered rollouts a second time: ratio behavior does already.",
        "Set rl.rare_negative.ratio: unsteered, or rl.importance_correction.mode: none.",
        (_is_not("rl.importance_correction.mode", None, "none"), _is("rl.rare_negative.ratio", "behavior")),
    ),
    Interaction(
        "off-policy sequence mask",
        Outcome.EXEMPT,
        "OFF_POLICY_MASK_DROPS_RARE_NEGATIVES",
        "The off-policy mask drops rollouts that the trained model finds unlikely, as it does every steered one.",
        "Set rl.importance_correction.off_policy_mask_threshold: 0, or use a trainer that exempts steered rollouts.",
        (_some("rl.importance_correction.off_policy_mask_threshold"),),
        Exemption.IMPORTANCE_CORRECTION,
    ),
    Interaction(
        "dynamic sampling",
        Outcome.EXEMPT,
        "DYNAMIC_SAMPLING_KEEPS_EVERYTHING",
        "A steered rollout gives every group a spread of rewards, so dynamic sampling would filter nothing.",
        "Set rl.dynamic_sampling.enabled: false, or use a trainer that decides on the normal rollouts.",
        (_is("rl.dynamic_sampling.enabled", True),),
        Exemption.DYNAMIC_SAMPLING,
    ),
    Interaction(
        "token-mean loss",
        Outcome.REFUSE,
        "RARE_NEGATIVE_UNBOUNDED",
        "With a token mean, a steered rollout without a limit of its own outweighs its whole group.",
        "Set rl.rare_negative.max_tokens (512) or rl.rare_negative.stop_after_loops (8).",
        (
            _is("rl.loss_reduction", "token_mean"),
            _none("rl.rare_negative.max_tokens"),
            _none("rl.rare_negative.stop_after_loops"),
        ),
    ),
    Interaction(
        "joint normalisation",
        Outcome.WARN,
        "WRONG_ANSWERS_REWARDED",
        "With joint advantages, a group of wrong answers learns from the one below them: at group size 8 each wrong "
        "answer has an advantage of +0.35.",
        "Set rl.rare_negative.advantage: separate to compare normal rollouts among themselves.",
        (
            _is_not("rl.rare_negative.advantage", "separate"),
            _rewarded("repetition", "python"),
            _is_not("rl.dynamic_sampling.enabled", True),
        ),
    ),
    Interaction(
        "reward without repetition term",
        Outcome.REFUSE,
        "NO_REPETITION_REWARD",
        "No reward tells a loop from a wrong answer, so in a group without a right one the rare negative teaches "
        "nothing.",
        "Add {name: repetition} to rl.rewards.",
        (_not_rewarded("repetition", "python"),),
    ),
    Interaction(
        "reward without repetition term",
        Outcome.WARN,
        "REPETITION_REWARD_UNKNOWN",
        "Whether the Python reward gives a loop less than a wrong answer is not known here; if not, groups without a "
        "right answer teach nothing.",
        "Add {name: repetition} to rl.rewards unless the function has such a term.",
        (_not_rewarded("repetition"), _rewarded("python")),
    ),
    Interaction(
        "steering that does not repeat",
        Outcome.REFUSE,
        "RARE_NEGATIVE_UNVERIFIED",
        "Steered rollouts that are not verified to loop make good answers into negatives, or into positives.",
        "Set rl.rare_negative.verify: true.",
        (_is_not("rl.rare_negative.verify", True), STEERED),
    ),
    Interaction(
        "steering that does not repeat",
        Outcome.WARN,
        "RARE_NEGATIVE_KEPT_ON_MISS",
        "With on_miss keep, steered rollouts that do not loop stay in: good answers become negatives, or positives.",
        "Set rl.rare_negative.on_miss: drop.",
        (_is("rl.rare_negative.on_miss", "keep"), STEERED),
    ),
    Interaction(
        "metrics",
        Outcome.EXEMPT,
        "METRICS_MIXED",
        "Means of rewards and lengths over normal and steered rollouts together tell nothing of either.",
        "Use a trainer that logs them apart.",
        (),
        Exemption.METRICS,
    ),
    *(
        Interaction(
            "repetition penalty, min_p",
            Outcome.EXEMPT,
            "SAMPLING_FORBIDS_LOOPS",
            f"{name} is not {neutral:g}, which keeps loops from forming.",
            f"Set rl.sampling.{name}: {neutral:g}, or use a trainer that switches it off for steered rollouts.",
            (_changes_sampling(f"rl.sampling.{name}", neutral), STEERED),
            Exemption.SAMPLING,
        )
        for name, neutral in _SAMPLING
    ),
    Interaction(
        "serving engine",
        Outcome.REFUSE,
        "STEERING_IN_SERVING_ENGINE",
        "Steered rollouts cannot come from {value}: its compiled steps skip the hook that steers.",
        "Set rl.rare_negative.engine: transformers; normal rollouts may still come from a serving engine.",
        (_is_not("rl.rare_negative.engine", None, "transformers"), STEERED),
    ),
    Interaction(
        "CUDA graphs",
        Outcome.REFUSE,
        "STEERING_UNDER_CUDA_GRAPHS",
        "CUDA graphs replay what was recorded, without the hook that steers.",
        "Set rl.rare_negative.cuda_graphs: false.",
        (_is("rl.rare_negative.cuda_graphs", True), STEERED),
    ),
    Interaction(
        "prefix cache",
        Outcome.REFUSE,
        "STEERING_WITH_PREFIX_CACHE",
        "A prefix cache hands steered rollouts states that were computed without steering, and the reverse.",
        "Set rl.rare_negative.prefix_cache: false.",
        (_is("rl.rare_negative.prefix_cache", True), STEERED),
    ),
)


@dataclass
class Found:
    """What the table says of an experiment.

    Attributes:
        refusals: errors to tell, all at once.
        warnings: sentences to tell, by reason.
        exemptions: what the trainer must do otherwise for steered rollouts, with why.
    """

    refusals: list[UserError] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)
    exemptions: dict[Exemption, str] = field(default_factory=dict)


def check_interactions(
    settings: Settings, can_exempt: Iterable[Exemption], *, table: Sequence[Interaction] = INTERACTIONS
) -> Found:
    """Asks every row.

    Args:
        settings: the experiment; see above.
        can_exempt: what the trainer can do otherwise for steered rollouts.
        table: the rows.
    """
    found, able = Found(), set(can_exempt)
    if not RARE_NEGATIVES.holds(value_at(settings, RARE_NEGATIVES.field)):
        return found
    for row in table:
        if not all(where.holds(value_at(settings, where.field)) for where in row.when):
            continue
        at = row.when[0].field if row.when else RARE_NEGATIVES.field
        message = row.message.replace("{value}", str(value_at(settings, at)))
        if row.outcome is Outcome.WARN:
            found.warnings[row.reason] = f"{message} {row.remedy}"
        elif row.exemption in able:
            assert row.exemption is not None
            found.exemptions.setdefault(row.exemption, message)
        else:
            found.refusals.append(UserError(message, remedy=row.remedy, reason=row.reason, field=at))
    return found


def value_at(settings: Settings, path: str) -> Any:
    """The value of a field, None where it or a message around it is not there."""
    value: Any = settings
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
