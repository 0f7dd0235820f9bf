"""The arms of a steering experiment: what steering is compared with, so that a difference means something.

Random directions are matched in norm, edit by edit; a foreign feature is one of the same SAE that is about as active.
Both are drawn anew for every seed: one unlucky direction proves nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.steering.resolve import LayerEdit, ResolvedSpec
from qscope.steering.saes import Saes
from qscope.steering.scales import WITHOUT_STRENGTH
from qscope.v1 import steer_pb2
from qscope.v1.steering_pb2 import (
    STEERING_OP_ADD,
    STEERING_OP_PROJECTION_CAP,
    STEERING_OP_SCALE,
    SteeringSpec,
)

#: Foreign features are drawn from this many neighbours in activity.
_NEIGHBOURS = 16


@dataclass(frozen=True)
class Activity:
    """How active the features of one SAE are on ordinary text.

    Attributes:
        rate_F: share of tokens at which a feature fires.
        mean_F: mean activation over all tokens.
    """

    rate_F: Tensor
    mean_F: Tensor


def with_factor(spec: SteeringSpec, factor: float, *, at: str = "steer.steering") -> SteeringSpec:
    """The spec with every strength multiplied.

    Raises:
        UserError: no edit has a strength (NOTHING_TO_SWEEP).
    """
    scaled = SteeringSpec()
    scaled.CopyFrom(spec)
    if factor == 1:
        return scaled
    touched = False
    for edit in scaled.edits:
        if has_strength(edit.op):
            # A factor of 1 is what leaves an activation alone, so a scale is swept around 1.
            edit.strength = 1 + factor * (edit.strength - 1) if edit.op == STEERING_OP_SCALE else factor * edit.strength
            touched = True
    if not touched:
        raise UserError(
            "No edit has a strength, so there is nothing to sweep.",
            remedy="Remove sweep, or use add, set, clamp_min, clamp_max or scale.",
            reason="NOTHING_TO_SWEEP",
            field=at,
        )
    return scaled


def has_strength(op: int) -> bool:
    """Whether an operation looks at its strength."""
    return op not in WITHOUT_STRENGTH and op != STEERING_OP_PROJECTION_CAP


def refuse_meaningless_controls(
    spec: SteeringSpec, controls: list[int], *, prompt_prefix: str = "", at: str = "steer.controls"
) -> None:
    """Refuses controls that say nothing about the edits at hand."""
    for index, control in enumerate(controls):
        name = steer_pb2.SteeringControl.Name(control).removeprefix("STEERING_CONTROL_").lower()
        ops_add = all(edit.op == STEERING_OP_ADD for edit in spec.edits)
        has_features = all(edit.features or edit.feature_file for edit in spec.edits)
        if control == steer_pb2.STEERING_CONTROL_PROMPT:
            if prompt_prefix:
                continue
            problem, remedy = "Control prompt needs a text to ask with", "Set steer.baselines.prompt_prefix."
        elif control != steer_pb2.STEERING_CONTROL_FOREIGN and not ops_add:
            problem, remedy = f"Control {name} needs edits that add", "Remove it, or use op: add."
        elif control == steer_pb2.STEERING_CONTROL_FOREIGN and not has_features:
            problem, remedy = "Control foreign needs features", "Remove it: a plain vector has no feature to replace."
        else:
            continue
        raise UserError(f"{problem}.", remedy=remedy, reason="CONTROL_MEANINGLESS", field=f"{at}[{index}]")


def control_arm(
    spec: ResolvedSpec,
    control: int,
    generator: torch.Generator,
    *,
    saes: Saes,
    activity_of: Callable[[int], Activity],
) -> ResolvedSpec:
    """A resolved spec turned into one of its controls.

    Args:
        spec: the steering that is tested.
        control: a ``SteeringControl``.
        generator: draws random directions and foreign features.
        saes: the SAEs, for foreign features.
        activity_of: activity of the features of a layer, for foreign ones.
    """
    match control:
        case steer_pb2.STEERING_CONTROL_ZERO:
            edits = [dataclasses.replace(edit, strength_M=edit.strength_M * 0) for edit in spec.edits]
        case steer_pb2.STEERING_CONTROL_FLIPPED:
            edits = [dataclasses.replace(edit, strength_M=-edit.strength_M) for edit in spec.edits]
        case steer_pb2.STEERING_CONTROL_RANDOM:
            edits = [_random(edit, generator) for edit in spec.edits]
        case steer_pb2.STEERING_CONTROL_FOREIGN:
            taken = {(edit.layer, feature) for edit in spec.edits for feature in edit.features}
            edits = [_foreign(edit, generator, saes, activity_of(edit.layer), taken) for edit in spec.edits]
        case _:
            raise AssertionError(f"control {control}")
    name = steer_pb2.SteeringControl.Name(control).removeprefix("STEERING_CONTROL_").lower()
    return ResolvedSpec(tuple(edits), spec.conflict, spec.abort_when, f"{name}:{generator.initial_seed()}:{spec.hash}")


def _random(edit: LayerEdit, generator: torch.Generator) -> LayerEdit:
    """One random direction in the place of the edit's whole change, of the same length.

    Several features add up to one change, longer or shorter than its parts: the sum is what is matched.
    """
    change_D = edit.strength_M @ edit.directions_MD
    random_D = torch.randn(change_D.shape, generator=generator)
    # Suppressing goes the other way along the same direction, as it does with the feature.
    sign = -1.0 if bool((edit.strength_M < 0).all()) else 1.0
    direction_MD = (random_D / random_D.norm() * change_D.norm() * sign)[None]
    return dataclasses.replace(edit, features=(), directions_MD=direction_MD, strength_M=torch.ones(1))


def _foreign(
    edit: LayerEdit, generator: torch.Generator, saes: Saes, activity: Activity, taken: set[tuple[int, int]]
) -> LayerEdit:
    """Each feature replaced by one that is about as active; its change is made as long as the original's."""
    features, rows = [], []
    for feature in edit.features:
        distance_F = (activity.mean_F.log1p() - activity.mean_F[feature].log1p()).abs()
        distance_F[[other for layer, other in taken if layer == edit.layer]] = torch.inf
        # A feature that never fires has a direction nobody trained.
        distance_F[activity.rate_F == 0] = torch.inf
        near = distance_F.argsort()[:_NEIGHBOURS]
        near = near[torch.isfinite(distance_F[near])]
        if len(near) == 0:
            raise UserError(
                f"The SAE of layer {edit.layer} has no other live feature to compare with.",
                remedy="Remove the control foreign.",
                reason="CONTROL_MEANINGLESS",
                field="steer.controls",
            )
        chosen = int(near[torch.randint(len(near), (1,), generator=generator)])
        taken = taken | {(edit.layer, chosen)}
        row_D = saes.directions(edit.layer, [chosen])[0]
        features.append(chosen)
        rows.append(row_D * (edit.directions_MD[len(rows)].norm() / row_D.norm()))
    return dataclasses.replace(edit, features=tuple(features), directions_MD=torch.stack(rows))
