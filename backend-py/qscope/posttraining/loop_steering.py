"""The change that makes a model loop: decoder directions of features, added from a prompt's last token on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from qscope.errors import UserError
from qscope.models import LoadedModel
from qscope.steering.groups import change_of
from qscope.steering.resolve import ResolvedSpec, resolve
from qscope.steering.saes import Saes
from qscope.steering.scales import Scales
from qscope.v1 import steering_pb2 as pb
from qscope.v1.features_pb2 import FeatureSet

#: Features by layer.
Chosen = Mapping[int, Sequence[int]]


def best_features(found: FeatureSet, top_k: int, *, at: str) -> dict[int, list[int]]:
    """The ``top_k`` features of the highest score, of the layer that has the best of all.

    Several layers at once would be several times the strength.

    Raises:
        UserError: the layer has fewer (FEATURES_NOT_FOUND), or the set none at all (FEATURES_EMPTY).
    """
    if not found.entries:
        raise UserError(
            "The feature set holds no feature.",
            remedy="Name a run of `qscope features repetition` that found some, or name features.",
            reason="FEATURES_EMPTY",
            field=f"{at}.feature_set",
        )
    ranked = sorted(found.entries, key=lambda entry: (-entry.score, entry.layer, entry.feature))
    layer = ranked[0].layer
    features = list(dict.fromkeys(entry.feature for entry in ranked if entry.layer == layer))
    if len(features) < top_k:
        raise UserError(
            f"The feature set has {len(features)} features of layer {layer}, whose best is the best of all; {top_k} "
            "are wanted.",
            remedy=f"Set top_k to {len(features)}, or name features.",
            reason="FEATURES_NOT_FOUND",
            field=f"{at}.top_k",
        )
    return {layer: features[:top_k]}


def named_features(names: Sequence[str]) -> dict[int, list[int]]:
    """Features by layer of names like ``4/127``."""
    chosen: dict[int, list[int]] = {}
    for name in names:
        layer, _, feature = name.partition("/")
        chosen.setdefault(int(layer), []).append(int(feature))
    return dict(sorted(chosen.items()))


def steering_of(
    loaded: LoadedModel, saes: Saes, chosen: Chosen, strength: float, norms: Mapping[int, float], *, at: str = ""
) -> ResolvedSpec:
    """Features added with a strength in median residual norms of their layer.

    The sum of a layer's features is as long as ``strength`` says: otherwise two features that point alike would be
    steering of twice the strength, and calibrated strengths of other numbers of features would not compare.

    Args:
        loaded: the model.
        saes: of its layers.
        chosen: features.
        strength: above 0.
        norms: median residual norm by layer, first tokens left out.
        at: experiment field of the features, for errors.

    Raises:
        UserError: what :func:`qscope.steering.resolve.resolve` raises of layers and features.
    """
    spec = pb.SteeringSpec(
        edits=[
            pb.SteeringEdit(
                layers=[layer],
                features=features,
                op=pb.STEERING_OP_ADD,
                strength=strength,
                unit=pb.STRENGTH_UNIT_NORM,
                where=pb.SteeringPlace(phase=pb.PHASE_GENERATED, include_last_prompt_token=True),
            )
            for layer, features in chosen.items()
        ],
        conflict=pb.CONFLICT_SUM,
    )
    scales = Scales(median_norm=dict(norms))
    facts = loaded.facts
    resolved = resolve(spec, n_layers=facts.n_layers, d_model=facts.d_model, saes=saes, scales=scales, at=at)
    edits = []
    for edit in resolved.edits:
        length = change_of([edit]).norm()
        edits.append(dataclasses.replace(edit, strength_M=edit.strength_M * (strength * norms[edit.layer] / length)))
    return dataclasses.replace(resolved, edits=tuple(edits))
