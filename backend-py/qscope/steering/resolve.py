"""From a steering spec to numbers: every mistake in it is found here, before a model computes anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from google.protobuf.json_format import MessageToDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from qscope.errors import UserError
from qscope.steering.edit import ACTIVATION_OPS
from qscope.steering.saes import Saes
from qscope.steering.scales import WITHOUT_STRENGTH, Scales
from qscope.v1 import steering_pb2 as pb


@dataclass(frozen=True, eq=False)
class LayerEdit:
    """One edit at one layer, in numbers.

    Attributes:
        index: place of the edit in its spec.
        layer: decoder block.
        op: what is done.
        features: feature ids; empty for a plain direction.
        directions_MD: float32; unit length for ``projection_cap``.
        strength_M: in activation units (see :func:`qscope.steering.edit.coefficients`).
        low_M: for ``projection_cap``.
        high_M: for ``projection_cap``.
        where: which tokens.
        when: conditions, all of which must hold.
        without_topk: see :func:`qscope.steering.edit.activations`.
    """

    index: int
    layer: int
    op: pb.SteeringOp
    features: tuple[int, ...]
    directions_MD: Tensor
    strength_M: Tensor
    low_M: Tensor
    high_M: Tensor
    where: pb.SteeringPlace
    when: tuple[tuple[int, int, float], ...]
    without_topk: bool

    @property
    def reads_activations(self) -> bool:
        return self.op in ACTIVATION_OPS


@dataclass(frozen=True, eq=False)
class ResolvedSpec:
    """A spec in numbers.

    Attributes:
        edits: in the order of the spec.
        conflict: what happens where several meet.
        abort_when: (layer, feature, threshold).
        hash: digest of the spec and of every number it resolved to; equal hashes mean equal steering.
    """

    edits: tuple[LayerEdit, ...]
    conflict: pb.Conflict
    abort_when: tuple[tuple[int, int, float], ...]
    hash: str

    @property
    def changes_nothing(self) -> bool:
        """True for the empty spec and for one whose every strength is zero."""
        return all(edit.op == pb.STEERING_OP_ADD and not bool(edit.strength_M.any()) for edit in self.edits)


def refuse_unknown(spec: pb.SteeringSpec, *, n_layers: int, saes: Saes, at: str = "steering") -> None:
    """Refuses layers and features that do not exist, before anything is measured about them.

    Raises:
        UserError: LAYER_OUT_OF_RANGE, FEATURE_OUT_OF_RANGE, or what the SAEs raise.
    """
    for index, edit in enumerate(spec.edits):
        place = f"{at}.edits[{index}]"
        _check_layers(edit.layers, n_layers, f"{place}.layers")
        for layer in edit.layers if edit.features else ():
            for number, feature in enumerate(edit.features):
                _check_feature(feature, layer, saes, f"{place}.features[{number}]")
        for number, condition in enumerate(edit.when):
            _condition(condition, n_layers, saes, f"{place}.when[{number}]")
    for number, condition in enumerate(spec.abort_when):
        _condition(condition, n_layers, saes, f"{at}.abort_when[{number}]")


def resolve(
    spec: pb.SteeringSpec, *, n_layers: int, d_model: int, saes: Saes, scales: Scales, at: str = "steering"
) -> ResolvedSpec:
    """Numbers of a validated spec.

    Args:
        spec: rules on the message hold already.
        n_layers: decoder blocks of the model.
        d_model: width of its residual stream.
        saes: the SAEs its features belong to.
        scales: for the units ``max`` and ``norm``.
        at: field of the spec, for errors.

    Raises:
        UserError: LAYER_OUT_OF_RANGE, FEATURE_OUT_OF_RANGE, VECTOR_UNUSABLE, FEATURE_TWICE, STEERING_CONFLICT,
            UNIT_UNKNOWN, CONDITION_TOO_HIGH, or what the SAEs raise.
    """
    edits: list[LayerEdit] = []
    for index, edit in enumerate(spec.edits):
        place = f"{at}.edits[{index}]"
        _check_layers(edit.layers, n_layers, f"{place}.layers")
        conditions = tuple(
            _condition(condition, n_layers, saes, f"{place}.when[{number}]")
            for number, condition in enumerate(edit.when)
        )
        for layer, features, directions_MD in _directions(edit, n_layers, d_model, saes, place):
            for number, (condition_layer, _, _) in enumerate(conditions):
                if condition_layer > layer:
                    raise UserError(
                        f"The condition reads layer {condition_layer}, which comes after the edited layer {layer}.",
                        remedy=f"Use a condition at layer {layer} or below, or edit a higher layer.",
                        reason="CONDITION_TOO_HIGH",
                        field=f"{place}.when[{number}].layer",
                    )
            edits.append(_numbers(edit, index, layer, features, directions_MD, conditions, scales, place))
    _refuse_conflicts(edits, spec.conflict, at)
    aborts = tuple(
        _condition(condition, n_layers, saes, f"{at}.abort_when[{number}]")
        for number, condition in enumerate(spec.abort_when)
    )
    return ResolvedSpec(tuple(edits), spec.conflict, aborts, _digest(spec, edits))


def _check_layers(layers: Sequence[int], n_layers: int, at: str) -> None:
    for number, layer in enumerate(layers):
        if layer >= n_layers:
            raise UserError(
                f"Layer {layer} does not exist: the model has {n_layers} layers, numbered 0 to {n_layers - 1}.",
                remedy=f"Choose layers from 0 to {n_layers - 1}.",
                reason="LAYER_OUT_OF_RANGE",
                field=f"{at}[{number}]",
            )


def _check_feature(feature: int, layer: int, saes: Saes, at: str) -> None:
    count = saes.d_sae(layer)
    if feature >= count:
        raise UserError(
            f"There is no feature {feature} at layer {layer}: its SAE has features 0 to {count - 1}.",
            remedy="Ids belong to one SAE; find features with `qscope features contrast`.",
            reason="FEATURE_OUT_OF_RANGE",
            field=at,
        )


def _condition(condition: pb.FeatureCondition, n_layers: int, saes: Saes, at: str) -> tuple[int, int, float]:
    if condition.layer >= n_layers:
        raise UserError(
            f"Layer {condition.layer} does not exist: the model has {n_layers} layers, numbered 0 to {n_layers - 1}.",
            remedy=f"Choose a layer from 0 to {n_layers - 1}.",
            reason="LAYER_OUT_OF_RANGE",
            field=f"{at}.layer",
        )
    _check_feature(condition.feature, condition.layer, saes, f"{at}.feature")
    return condition.layer, condition.feature, condition.above


def _directions(
    edit: pb.SteeringEdit, n_layers: int, d_model: int, saes: Saes, at: str
) -> Iterator[tuple[int, tuple[int, ...], Tensor]]:
    """(layer, features, directions_MD) of an edit."""
    if edit.vector:
        vector_D = _usable(torch.tensor(list(edit.vector), dtype=torch.float64), d_model, f"{at}.vector", "The vector")
        for layer in edit.layers:
            yield layer, (), vector_D[None]
    elif edit.vector_file:
        for layer, vector_D in _vectors(edit, n_layers, d_model, f"{at}.vector_file").items():
            yield layer, (), vector_D[None]
    else:
        assert not edit.feature_file, "feature files are read before (expand_feature_files)"
        for layer in edit.layers:
            for number, feature in enumerate(edit.features):
                _check_feature(feature, layer, saes, f"{at}.features[{number}]")
            yield layer, tuple(edit.features), saes.directions(layer, list(edit.features))


def _vectors(edit: pb.SteeringEdit, n_layers: int, d_model: int, at: str) -> dict[int, Tensor]:
    path = Path(edit.vector_file)
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file.", remedy="Name a safetensors file.", reason="VECTOR_UNUSABLE", field=at
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({str(error)[:100]}).",
            remedy="Save the direction with safetensors.torch.save_file({'vector': tensor}, path).",
            reason="VECTOR_UNUSABLE",
            field=at,
        ) from None
    by_layer = {
        int(name[5:]): tensor for name, tensor in tensors.items() if name.startswith("layer") and name[5:].isdigit()
    }
    if "vector" in tensors and edit.layers:
        by_layer = {layer: tensors["vector"] for layer in edit.layers}
    wanted = list(edit.layers) or sorted(by_layer)
    missing = [layer for layer in wanted if layer not in by_layer]
    if missing or not wanted:
        names = ", ".join(sorted(tensors)[:8]) or "nothing"
        raise UserError(
            f"{path}: it holds {names}, and no direction for {f'layer {missing[0]}' if missing else 'any layer'}.",
            remedy="Name the tensor vector (and give layers), or layer0, layer1, ... for one direction per layer.",
            reason="VECTOR_UNUSABLE",
            field=at,
        )
    _check_layers(wanted, n_layers, at)
    return {
        layer: _usable(by_layer[layer].double().flatten(), d_model, at, f"{path.name}, layer {layer}:")
        for layer in wanted
    }


def _usable(vector_D: Tensor, d_model: int, at: str, what: str) -> Tensor:
    problem = ""
    if len(vector_D) != d_model:
        problem = f"has {len(vector_D)} numbers, and the model's residual stream {d_model}"
    elif not bool(torch.isfinite(vector_D).all()):
        problem = "holds numbers that are not finite"
    elif not bool(vector_D.any()):
        problem = "is zero everywhere"
    if problem:
        # A direction that silently does nothing is the classic way to steer in vain.
        raise UserError(f"{what} {problem}.", remedy="Make the direction again.", reason="VECTOR_UNUSABLE", field=at)
    return vector_D.float()


def _numbers(
    edit: pb.SteeringEdit,
    index: int,
    layer: int,
    features: tuple[int, ...],
    directions_MD: Tensor,
    when: tuple[tuple[int, int, float], ...],
    scales: Scales,
    at: str,
) -> LayerEdit:
    length_M = directions_MD.norm(dim=1)
    plain = edit.op == pb.STEERING_OP_SCALE or edit.op in WITHOUT_STRENGTH
    if plain or edit.unit == pb.STRENGTH_UNIT_RAW:
        unit_M = torch.ones_like(length_M)
        projected_M = unit_M
    elif edit.unit == pb.STRENGTH_UNIT_MAX:
        unit_M = torch.tensor([_maximum(scales, layer, feature, f"{at}.unit") for feature in features])
        projected_M = unit_M * length_M
    else:
        norm = scales.median_norm.get(layer, 0.0)
        if not norm > 0:
            raise UserError(
                f"The median residual norm of layer {layer} is not known, so unit norm means nothing there.",
                remedy="Calibrate first, or use unit: raw.",
                reason="UNIT_UNKNOWN",
                field=f"{at}.unit",
            )
        unit_M = norm / length_M
        projected_M = torch.full_like(length_M, norm)
    capped = edit.op == pb.STEERING_OP_PROJECTION_CAP
    return LayerEdit(
        index=index,
        layer=layer,
        op=edit.op,
        features=features,
        directions_MD=directions_MD / length_M[:, None] if capped else directions_MD,
        strength_M=edit.strength * unit_M,
        low_M=edit.low * projected_M,
        high_M=edit.high * projected_M,
        where=edit.where,
        when=when,
        without_topk=edit.without_topk,
    )


def _maximum(scales: Scales, layer: int, feature: int, at: str) -> float:
    found = scales.max_activation.get((layer, feature), 0.0)
    if not found > 0:
        raise UserError(
            f"Feature {feature} of layer {layer} was never seen active, so unit max means nothing for it.",
            remedy="Use unit: raw or norm, or calibrate on text where the feature fires.",
            reason="UNIT_UNKNOWN",
            field=at,
        )
    return found


def _refuse_conflicts(edits: Sequence[LayerEdit], conflict: pb.Conflict, at: str) -> None:
    taken: dict[tuple[int, int], int] = {}
    at_layer: dict[int, int] = {}
    for edit in edits:
        if conflict == pb.CONFLICT_ERROR and at_layer.setdefault(edit.layer, edit.index) != edit.index:
            raise UserError(
                f"Edits {at_layer[edit.layer]} and {edit.index} both change layer {edit.layer}, and conflict is error.",
                remedy="Set conflict: sum, priority or sequential.",
                reason="STEERING_CONFLICT",
                field=f"{at}.edits[{edit.index}].layers",
            )
        if not edit.reads_activations or conflict in (pb.CONFLICT_PRIORITY, pb.CONFLICT_SEQUENTIAL):
            continue
        for feature in edit.features:
            other = taken.setdefault((edit.layer, feature), edit.index)
            if other != edit.index:
                raise UserError(
                    f"Edits {other} and {edit.index} both set feature {feature} of layer {edit.layer}: "
                    "their sum is neither.",
                    remedy="Keep one of them, or set conflict: priority or sequential.",
                    reason="FEATURE_TWICE",
                    field=f"{at}.edits[{edit.index}].features",
                )


def _digest(spec: pb.SteeringSpec, edits: Sequence[LayerEdit]) -> str:
    state = hashlib.blake2b(digest_size=12)
    document = MessageToDict(spec, preserving_proto_field_name=True)
    for edit in document.get("edits", []):
        # A file counts by what it holds, which follows below.
        edit.pop("vector_file", None)
    state.update(json.dumps(document, sort_keys=True).encode())
    for edit in edits:
        state.update(f"{edit.index} {edit.layer} {edit.features}".encode())
        for tensor in (edit.directions_MD, edit.strength_M, edit.low_M, edit.high_M):
            state.update(tensor.contiguous().numpy().tobytes())
    return state.hexdigest()
