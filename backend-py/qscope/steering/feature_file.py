"""Edits that name a file of features, as edits that name the features."""

from __future__ import annotations

from qscope.errors import UserError
from qscope.features.files import load_features, refuse_other_sae
from qscope.steering.saes import Saes
from qscope.steering.scales import Scales
from qscope.v1 import steering_pb2 as pb
from qscope.v1.features_pb2 import FeatureSet


def expand_feature_files(
    spec: pb.SteeringSpec, *, d_model: int, saes: Saes, at: str = "steering"
) -> tuple[pb.SteeringSpec, Scales]:
    """The spec with every ``feature_file`` replaced by the best features in it, one edit per layer.

    Args:
        spec: a validated spec.
        d_model: width of the model's residual stream.
        saes: those the features will be taken from.
        at: field of the spec, for errors.

    Returns:
        The spec, and what the files know of their features' maxima and their layers' residual norms (above 0).

    Raises:
        UserError: a file is missing or damaged, belongs to another model or other SAEs, or names no feature of a
            wanted layer.
    """
    expanded, scales = pb.SteeringSpec(), Scales()
    expanded.CopyFrom(spec)
    del expanded.edits[:]
    for index, edit in enumerate(spec.edits):
        if not edit.feature_file:
            expanded.edits.append(edit)
            continue
        field = f"{at}.edits[{index}].feature_file"
        found = load_features(edit.feature_file, field=field)
        _refuse_other_model(found, d_model, edit.feature_file, field)
        for layer in _wanted_layers(found, edit, field):
            refuse_other_sae(found, layer, saes.fingerprint(layer), path=edit.feature_file, field=field)
            best = [entry for entry in found.entries if entry.layer == layer][: edit.top]
            part = expanded.edits.add()
            part.CopyFrom(edit)
            part.feature_file = ""
            part.layers[:] = [layer]
            part.features[:] = [entry.feature for entry in best]
            for entry in best:
                # 0 means that whoever wrote the file did not measure it.
                if entry.max_activation > 0:
                    scales.max_activation[layer, entry.feature] = entry.max_activation
                if entry.median_residual_norm > 0:
                    scales.median_norm[layer] = entry.median_residual_norm
    return expanded, scales


def _refuse_other_model(found: FeatureSet, d_model: int, path: str, field: str) -> None:
    width = found.model_record.d_model
    if width and width != d_model:
        raise UserError(
            f"{path}: its features were found in {found.model}, {width} wide; this model is {d_model} wide.",
            remedy="Name the model they were found in, or find features in this one.",
            reason="FEATURES_OF_ANOTHER_MODEL",
            field=field,
        )


def _wanted_layers(found: FeatureSet, edit: pb.SteeringEdit, field: str) -> list[int]:
    there = sorted({entry.layer for entry in found.entries})
    missing = [layer for layer in edit.layers if layer not in there]
    if missing or not there:
        raise UserError(
            f"{edit.feature_file}: it names no feature of {f'layer {missing[0]}' if missing else 'any layer'}.",
            remedy=f"It has features of layers {', '.join(map(str, there))}." if there else "Find features again.",
            reason="FEATURES_NOT_FOUND",
            field=field,
        )
    return list(edit.layers) or there
