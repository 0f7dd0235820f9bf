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

    @property
    def changes_nothing(self) -> bool:
        """Whether its strengths leave every stream as it is: adding 0, scaling by 1, raising to 0 what is not below."""
        match self.op:
            case pb.STEERING_OP_ADD:
                return not bool(self.strength_M.any())
            case pb.STEERING_OP_SCALE:
                return bool((self.strength_M == 1).all())
            case pb.STEERING_OP_CLAMP_MIN:
                return bool((self.strength_M <= 0).all())
        return False


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
        """True for a spec that asks for no change: the empty one, and one whose every strength leaves things alone."""
        return all(edit.changes_nothing for edit in self.edits)


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
            UNIT_UNKNOWN, STRENGTH_UNUSABLE, CONDITION_TOO_HIGH, or what the SAEs raise.
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
    # In the precision it is used in: 1e300 is infinite there, and 1e-60 is nothing.
    vector_D, problem = vector_D.float(), ""
    if len(vector_D) != d_model:
        problem = f"has {len(vector_D)} numbers, and the model's residual stream {d_model}"
    elif not bool(torch.isfinite(vector_D).all()):
        problem = "holds numbers that are not finite in float32"
    elif not bool(vector_D.any()):
        problem = "is zero everywhere in float32"
    if problem:
        # A direction that silently does nothing is the classic way to steer in vain.
        raise UserError(f"{what} {problem}.", remedy="Make the direction again.", reason="VECTOR_UNUSABLE", field=at)
    return vector_D


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
    # In float64: the squares of numbers that float32 holds may not fit it.
    length_M = directions_MD.double().norm(dim=1)
    capped = edit.op == pb.STEERING_OP_PROJECTION_CAP
    plain = edit.op == pb.STEERING_OP_SCALE or edit.op in WITHOUT_STRENGTH
    if capped or (edit.unit == pb.STRENGTH_UNIT_NORM and not plain):
        _refuse_without_length(length_M, layer, features, at)
    if plain or edit.unit == pb.STRENGTH_UNIT_RAW:
        unit_M = torch.ones_like(length_M)
        projected_M = unit_M
    elif edit.unit == pb.STRENGTH_UNIT_MAX:
        unit_M = torch.tensor(
            [_maximum(scales, layer, feature, f"{at}.unit") for feature in features], dtype=torch.float64
        )
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
    directions_MD = (directions_MD / length_M[:, None]).float() if capped else directions_MD
    numbers = LayerEdit(
        index=index,
        layer=layer,
        op=edit.op,
        features=features,
        directions_MD=directions_MD,
        strength_M=(edit.strength * unit_M).float(),
        low_M=(edit.low * projected_M).float(),
        high_M=(edit.high * projected_M).float(),
        where=edit.where,
        when=when,
        without_topk=edit.without_topk,
    )
    _refuse_unusable_strength(edit, numbers, at)
    return numbers


def _refuse_without_length(length_M: Tensor, layer: int, features: tuple[int, ...], at: str) -> None:
    """Refuses a decoder row of zeros, as a dead feature may have it, where the unit direction is asked for.

    Raises:
        UserError: VECTOR_UNUSABLE.
    """
    for number, length in enumerate(length_M.tolist()):
        if not length > 0:
            what = f"The decoder row of feature {features[number]}" if features else "The direction"
            raise UserError(
                f"{what} at layer {layer} has no length, so it points nowhere.",
                remedy="Choose another feature; this one was never trained.",
                reason="VECTOR_UNUSABLE",
                field=f"{at}.features[{number}]" if features else at,
            )


def _refuse_unusable_strength(edit: pb.SteeringEdit, numbers: LayerEdit, at: str) -> None:
    """Refuses what is finite and not zero in the spec, and infinite or nothing in float32, in which it is computed.

    Raises:
        UserError: STRENGTH_UNUSABLE, at the field that holds the number.
    """
    if edit.op in WITHOUT_STRENGTH:
        return
    checked = {"strength": numbers.strength_M @ numbers.directions_MD}
    if edit.op == pb.STEERING_OP_PROJECTION_CAP:
        checked = {"low": numbers.low_M, "high": numbers.high_M}
    for name, values in checked.items():
        if not bool(torch.isfinite(values).all()):
            raise UserError(
                f"{name.capitalize()} {getattr(edit, name):g} makes a change at layer {numbers.layer} that float32 "
                "cannot hold.",
                remedy="Lower it: with unit norm, 1 is already as long as the residual stream itself.",
                reason="STRENGTH_UNUSABLE",
                field=f"{at}.{name}",
            )
    if edit.op == pb.STEERING_OP_ADD and edit.strength and not bool(numbers.strength_M.all()):
        raise UserError(
            f"Strength {edit.strength:g} is nothing in float32 at layer {numbers.layer}: it would change no text.",
            remedy="Raise it, or set it to 0.",
            reason="STRENGTH_UNUSABLE",
            field=f"{at}.strength",
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
