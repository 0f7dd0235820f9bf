"""Edits that make one change together: what a control has to match is that change, not its parts.

Two features of one layer that point almost the same way change the stream by nearly twice as much as two that do not,
whether they stand in one edit or in two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from qscope.steering.edit import CONSTANT_OPS
from qscope.steering.resolve import LayerEdit, ResolvedSpec
from qscope.v1 import steering_pb2 as pb

Group = tuple[LayerEdit, ...]


def groups_of(spec: ResolvedSpec) -> list[Group]:
    """The edits of a spec, those together that add up at every token: one layer, one place, the same conditions.

    Every other edit stands alone: what another operation changes is not known before the stream is, under ``priority``
    only one edit acts at a token, and changes of different places meet at some tokens and not at others.

    Returns:
        groups in the order of their first edits.
    """
    adding = spec.conflict != pb.CONFLICT_PRIORITY
    groups: dict[object, list[LayerEdit]] = {}
    for number, edit in enumerate(spec.edits):
        key: object = number
        if adding and edit.op in CONSTANT_OPS:
            key = edit.layer, edit.where.SerializeToString(deterministic=True), frozenset(edit.when)
        groups.setdefault(key, []).append(edit)
    return [tuple(group) for group in groups.values()]


def change_of(group: Sequence[LayerEdit]) -> Tensor:
    """What a group of additions adds to the stream: [D], in its units."""
    return torch.stack([edit.strength_M @ edit.directions_MD for edit in group]).sum(0)


def turned(group: Group, direction_D: Tensor) -> LayerEdit:
    """One edit in the place of a group of additions: along another direction, and as long as their sum.

    Args:
        group: from :func:`groups_of`.
        direction_D: of any length but zero.
    """
    length = change_of(group).norm()
    # Suppressing goes the other way along the same direction, as it does with the feature.
    sign = -1.0 if all(bool((edit.strength_M < 0).all()) for edit in group) else 1.0
    row_D = direction_D / direction_D.norm() * length * sign
    # Of no change remains none, and that is no failure of the control.
    strength_M = (length > 0).float()[None]
    return dataclasses.replace(group[0], features=(), directions_MD=row_D[None], strength_M=strength_M)
