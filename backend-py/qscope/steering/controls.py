"""The arms of a steering experiment: what steering is compared with, so that a difference means something.

A random direction is as long as the change it stands for, which may be the sum of several edits; foreign features are
of the same SAE and about as active, and their sum is made as long. Both are drawn anew for every seed: one unlucky
direction proves nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.steering.edit import CONSTANT_OPS
from qscope.steering.groups import Group, change_of, groups_of, turned
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
        elif not spec.edits:
            problem, remedy = f"Control {name} needs edits, and the spec has none", "Remove it, or add an edit."
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
            edits = [_random(group, generator) for group in groups_of(spec)]
        case steer_pb2.STEERING_CONTROL_FOREIGN:
            taken = {(edit.layer, feature) for edit in spec.edits for feature in edit.features}
            groups = groups_of(spec)
            replaced = {
                id(own): other
                for group in groups
                for own, other in zip(
                    group, _foreign_group(group, generator, saes, activity_of(group[0].layer), taken), strict=True
                )
            }
            # In the order of the spec: it decides which of several edits of a token comes first.
            edits = [replaced[id(edit)] for edit in spec.edits]
        case _:
            raise AssertionError(f"control {control}")
    name = steer_pb2.SteeringControl.Name(control).removeprefix("STEERING_CONTROL_").lower()
    # No strength is the unsteered text, which nothing ends early.
    aborts = () if control == steer_pb2.STEERING_CONTROL_ZERO else spec.abort_when
    return ResolvedSpec(tuple(edits), spec.conflict, aborts, f"{name}:{generator.initial_seed()}:{spec.hash}")


def _random(group: Group, generator: torch.Generator) -> LayerEdit:
    """One random direction in the place of the whole change of a group of edits, of the same length."""
    return turned(group, torch.randn(group[0].directions_MD.shape[1:], generator=generator))


def _foreign_group(
    group: Group, generator: torch.Generator, saes: Saes, activity: Activity, taken: set[tuple[int, int]]
) -> list[LayerEdit]:
    """Every feature of a group replaced, and the sum of what it adds made as long as before.

    Where several are added, the angles between them decide how long their sum is, and foreign ones have other angles.
    One feature alone, or an operation whose change depends on the stream, is matched direction by direction.
    """
    edits: list[LayerEdit] = []
    for edit in group:
        edits.append(_foreign(edit, generator, saes, activity, taken))
        # Two features of a group that became the same one would be one feature at twice the strength.
        taken = taken | {(edit.layer, feature) for feature in edits[-1].features}
    if group[0].op not in CONSTANT_OPS or sum(len(edit.features) for edit in group) == 1:
        return edits
    own, foreign = change_of(group).norm(), change_of(edits).norm()
    if not foreign > 0:
        return edits
    return [dataclasses.replace(edit, directions_MD=edit.directions_MD * (own / foreign)) for edit in edits]


def _foreign(
    edit: LayerEdit, generator: torch.Generator, saes: Saes, activity: Activity, taken: set[tuple[int, int]]
) -> LayerEdit:
    """Each feature replaced by one that is about as active; its direction is made as long as the original's."""
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
