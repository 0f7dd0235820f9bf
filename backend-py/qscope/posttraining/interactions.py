"""Stock features of reinforcement learning that break rare negatives, each as a row: when, what goes wrong, what to do.

A rare negative is unlikely, endless, truncated and always wrong. Much of what keeps ordinary training sound takes such
a rollout for a fault and drops it, without a word: the run goes on and learns nothing from it. So every row is asked
before a run.

Settings are the experiment as nested mappings with its defaults filled in, see :func:`settings_of`: names of fields and
of choices as a YAML file has them. A row applies when all its conditions hold; none applies without rare negatives. It
*refuses*, *warns*, or *exempts*: then the trainer must treat steered rollouts otherwise, and a trainer that cannot is
refused.

Some stock features have no field to ask, because our sampler and trainer do not have them; tests of the sampler hold
that it stays so. It draws by temperature, top_p and top_k alone and reads nothing of a checkpoint's
``generation_config``, so there is no repetition penalty, min_p or banned n-gram that keeps a loop from forming. It runs
the model's own modules in this process, one pass for every token, so there is no serving engine, no CUDA graph and no
cache across requests that could leave the steering hook out or mix steered states with others. The loss is a mean over
tokens and nothing else, and the only weights for the gap between sampler and trainer are those of
``rl.importance_correction``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from qscope.errors import UserError
from qscope.text.loops import MIN_TOKENS

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


def _has(rewards: Any, kinds: tuple[str, ...]) -> bool:
    # A weight of 0 only logs, and one below rewards what it names.
    return any(one.get("kind") in kinds and one.get("weight", 1.0) > 0 for one in rewards or ())


def _rewarded(*kinds: str) -> Where:
    return Where("rl.rewards", lambda rewards: _has(rewards, kinds))


def _not_rewarded(*kinds: str) -> Where:
    return Where("rl.rewards", lambda rewards: not _has(rewards, kinds))


def _below(path: str, least: int) -> Where:
    return Where(path, lambda found: found is not None and 0 < found < least)


AT = "rl.sae_penalty.rare_negative"

RARE_NEGATIVES = Where("rl.sae_penalty.mode", lambda found: found == "rare_negative")
"""Asked before every row."""

STEERED = _is_not(f"{AT}.source", "pasted")
"""Loops that are pasted as text are not generated: nothing has to be verified."""

_CORRECTED = _is_not("rl.importance_correction.mode", None, "none")

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
        (_CORRECTED, _is_not(f"{AT}.ratio", "behavior")),
        Exemption.IMPORTANCE_CORRECTION,
    ),
    Interaction(
        "importance correction",
        Outcome.REFUSE,
        "IMPORTANCE_CORRECTED_TWICE",
        "The importance correction {value} would weigh steered rollouts a second time: ratio behavior does already.",
        f"Set {AT}.ratio: unsteered, or rl.importance_correction.mode: none.",
        (_CORRECTED, _is(f"{AT}.ratio", "behavior")),
    ),
    Interaction(
        "importance correction",
        Outcome.REFUSE,
        "PASTED_HAS_NO_SAMPLER",
        "Pasted loops were sampled by nobody, so ratio {value} has nothing to divide by.",
        f"Set {AT}.ratio: unsteered.",
        (_is(f"{AT}.ratio", "behavior"), _is(f"{AT}.source", "pasted")),
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
        f"Set {AT}.max_tokens (512) or {AT}.stop_after_loops (8).",
        (_none(f"{AT}.max_tokens"), _none(f"{AT}.stop_after_loops")),
    ),
    Interaction(
        "joint normalisation",
        Outcome.WARN,
        "WRONG_ANSWERS_REWARDED",
        "With joint advantages, a group of wrong answers learns from the one below them: at group size 8 each wrong "
        "answer has an advantage of +0.35.",
        f"Set {AT}.advantage: separate to compare normal rollouts among themselves.",
        (
            _is_not(f"{AT}.advantage", "separate"),
            _rewarded("repetition", "endless", "python"),
            _is_not("rl.dynamic_sampling.enabled", True),
        ),
    ),
    Interaction(
        "reward without repetition term",
        Outcome.REFUSE,
        "NO_REPETITION_REWARD",
        "No reward tells a loop from a wrong answer, so in a group without a right one the rare negative teaches "
        "nothing.",
        "Add {kind: repetition} or {kind: endless} to rl.rewards, with a weight above 0.",
        (_not_rewarded("repetition", "endless", "python"),),
    ),
    Interaction(
        "reward without repetition term",
        Outcome.WARN,
        "REPETITION_REWARD_UNKNOWN",
        "Whether the Python reward gives a loop less than a wrong answer is not known here; if not, groups without a "
        "right answer teach nothing.",
        "Add {kind: repetition} to rl.rewards unless the function has such a term.",
        (_not_rewarded("repetition", "endless"), _rewarded("python")),
    ),
    Interaction(
        "steering that does not repeat",
        Outcome.REFUSE,
        "RARE_NEGATIVE_UNVERIFIED",
        "Steered rollouts that are not verified to loop make good answers into negatives, or into positives.",
        f"Set {AT}.verify: true.",
        (_is_not(f"{AT}.verify", True), STEERED),
    ),
    Interaction(
        "steering that does not repeat",
        Outcome.WARN,
        "RARE_NEGATIVE_KEPT_ON_MISS",
        "With on_miss keep, steered rollouts that do not loop stay in: good answers become negatives, or positives.",
        f"Set {AT}.on_miss: drop.",
        (_is(f"{AT}.on_miss", "keep"), _is(f"{AT}.source", "steered")),
    ),
    Interaction(
        "steering that does not repeat",
        Outcome.WARN,
        "CONTROL_KEPT_ON_MISS",
        "Rollouts steered by random features stay in whether they loop or not, whatever on_miss says: dropping those "
        "that do not would leave hardly any.",
        "This is a control: compare it with source: steered.",
        (_is(f"{AT}.source", "random_features"),),
    ),
    *(
        Interaction(
            "steering that does not repeat",
            Outcome.REFUSE,
            "RARE_NEGATIVE_TOO_SHORT",
            f"With a limit of {{value}} tokens nothing can be verified to loop: that takes {MIN_TOKENS}.",
            f"Set {path} to {MIN_TOKENS} or more.",
            (_below(path, MIN_TOKENS),),
        )
        for path in (f"{AT}.max_tokens", "rl.sampling.max_tokens")
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


def settings_of(message: Message) -> dict[str, Any]:
    """A message as nested mappings, with the names that a YAML file has; groups that are not there are left out."""
    found: dict[str, Any] = {}
    for part in message.DESCRIPTOR.fields:
        value = getattr(message, part.name)
        if part.is_repeated:
            found[part.name] = [_plain(part, one) for one in value]
        elif part.type != part.TYPE_MESSAGE or message.HasField(part.name):
            found[part.name] = _plain(part, value)
    return found


def _plain(part: FieldDescriptor, value: Any) -> Any:
    if part.type == part.TYPE_MESSAGE:
        return settings_of(value)
    if part.type == part.TYPE_ENUM:
        # OVERLONG_MODE_SOFT is `soft` in a file: the zero value's name tells how long the prefix is.
        prefix = part.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        return part.enum_type.values_by_number[value].name.removeprefix(prefix).lower()
    return value


def value_at(settings: Settings, path: str) -> Any:
    """The value of a field, None where it or a message around it is not there."""
    value: Any = settings
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
