from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SteeringOp(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEERING_OP_UNSPECIFIED: _ClassVar[SteeringOp]
    STEERING_OP_ADD: _ClassVar[SteeringOp]
    STEERING_OP_SET: _ClassVar[SteeringOp]
    STEERING_OP_CLAMP_MIN: _ClassVar[SteeringOp]
    STEERING_OP_CLAMP_MAX: _ClassVar[SteeringOp]
    STEERING_OP_SCALE: _ClassVar[SteeringOp]
    STEERING_OP_ZERO: _ClassVar[SteeringOp]
    STEERING_OP_NEGATE: _ClassVar[SteeringOp]
    STEERING_OP_PROJECTION_CAP: _ClassVar[SteeringOp]

class StrengthUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STRENGTH_UNIT_UNSPECIFIED: _ClassVar[StrengthUnit]
    STRENGTH_UNIT_RAW: _ClassVar[StrengthUnit]
    STRENGTH_UNIT_MAX: _ClassVar[StrengthUnit]
    STRENGTH_UNIT_NORM: _ClassVar[StrengthUnit]

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_ALL: _ClassVar[Phase]
    PHASE_PROMPT: _ClassVar[Phase]
    PHASE_GENERATED: _ClassVar[Phase]

class TokenClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOKEN_CLASS_UNSPECIFIED: _ClassVar[TokenClass]
    TOKEN_CLASS_SPECIAL: _ClassVar[TokenClass]
    TOKEN_CLASS_TEMPLATE: _ClassVar[TokenClass]
    TOKEN_CLASS_THINK: _ClassVar[TokenClass]
    TOKEN_CLASS_ANSWER: _ClassVar[TokenClass]

class Conflict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONFLICT_UNSPECIFIED: _ClassVar[Conflict]
    CONFLICT_SUM: _ClassVar[Conflict]
    CONFLICT_PRIORITY: _ClassVar[Conflict]
    CONFLICT_SEQUENTIAL: _ClassVar[Conflict]
    CONFLICT_ERROR: _ClassVar[Conflict]
STEERING_OP_UNSPECIFIED: SteeringOp
STEERING_OP_ADD: SteeringOp
STEERING_OP_SET: SteeringOp
STEERING_OP_CLAMP_MIN: SteeringOp
STEERING_OP_CLAMP_MAX: SteeringOp
STEERING_OP_SCALE: SteeringOp
STEERING_OP_ZERO: SteeringOp
STEERING_OP_NEGATE: SteeringOp
STEERING_OP_PROJECTION_CAP: SteeringOp
STRENGTH_UNIT_UNSPECIFIED: StrengthUnit
STRENGTH_UNIT_RAW: StrengthUnit
STRENGTH_UNIT_MAX: StrengthUnit
STRENGTH_UNIT_NORM: StrengthUnit
PHASE_UNSPECIFIED: Phase
PHASE_ALL: Phase
PHASE_PROMPT: Phase
PHASE_GENERATED: Phase
TOKEN_CLASS_UNSPECIFIED: TokenClass
TOKEN_CLASS_SPECIAL: TokenClass
TOKEN_CLASS_TEMPLATE: TokenClass
TOKEN_CLASS_THINK: TokenClass
TOKEN_CLASS_ANSWER: TokenClass
CONFLICT_UNSPECIFIED: Conflict
CONFLICT_SUM: Conflict
CONFLICT_PRIORITY: Conflict
CONFLICT_SEQUENTIAL: Conflict
CONFLICT_ERROR: Conflict

class TokenSet(_message.Message):
    __slots__ = ("positions", "tokens", "classes")
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    positions: _containers.RepeatedScalarFieldContainer[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    classes: _containers.RepeatedScalarFieldContainer[TokenClass]
    def __init__(self, positions: _Optional[_Iterable[int]] = ..., tokens: _Optional[_Iterable[str]] = ..., classes: _Optional[_Iterable[_Union[TokenClass, str]]] = ...) -> None: ...

class SteeringPlace(_message.Message):
    __slots__ = ("phase", "include_last_prompt_token", "only", "include_first_token")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_LAST_PROMPT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ONLY_FIELD_NUMBER: _ClassVar[int]
    EXCEPT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    phase: Phase
    include_last_prompt_token: bool
    only: TokenSet
    include_first_token: bool
    def __init__(self, phase: _Optional[_Union[Phase, str]] = ..., include_last_prompt_token: _Optional[bool] = ..., only: _Optional[_Union[TokenSet, _Mapping]] = ..., include_first_token: _Optional[bool] = ..., **kwargs) -> None: ...

class FeatureCondition(_message.Message):
    __slots__ = ("layer", "feature", "above")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    ABOVE_FIELD_NUMBER: _ClassVar[int]
    layer: int
    feature: int
    above: float
    def __init__(self, layer: _Optional[int] = ..., feature: _Optional[int] = ..., above: _Optional[float] = ...) -> None: ...

class SteeringEdit(_message.Message):
    __slots__ = ("layers", "features", "feature_file", "top", "vector_file", "vector", "op", "strength", "unit", "low", "high", "where", "when", "without_topk")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FILE_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FILE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    WHEN_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_TOPK_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedScalarFieldContainer[int]
    features: _containers.RepeatedScalarFieldContainer[int]
    feature_file: str
    top: int
    vector_file: str
    vector: _containers.RepeatedScalarFieldContainer[float]
    op: SteeringOp
    strength: float
    unit: StrengthUnit
    low: float
    high: float
    where: SteeringPlace
    when: _containers.RepeatedCompositeFieldContainer[FeatureCondition]
    without_topk: bool
    def __init__(self, layers: _Optional[_Iterable[int]] = ..., features: _Optional[_Iterable[int]] = ..., feature_file: _Optional[str] = ..., top: _Optional[int] = ..., vector_file: _Optional[str] = ..., vector: _Optional[_Iterable[float]] = ..., op: _Optional[_Union[SteeringOp, str]] = ..., strength: _Optional[float] = ..., unit: _Optional[_Union[StrengthUnit, str]] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., where: _Optional[_Union[SteeringPlace, _Mapping]] = ..., when: _Optional[_Iterable[_Union[FeatureCondition, _Mapping]]] = ..., without_topk: _Optional[bool] = ...) -> None: ...

class SteeringSpec(_message.Message):
    __slots__ = ("edits", "conflict", "abort_when")
    EDITS_FIELD_NUMBER: _ClassVar[int]
    CONFLICT_FIELD_NUMBER: _ClassVar[int]
    ABORT_WHEN_FIELD_NUMBER: _ClassVar[int]
    edits: _containers.RepeatedCompositeFieldContainer[SteeringEdit]
    conflict: Conflict
    abort_when: _containers.RepeatedCompositeFieldContainer[FeatureCondition]
    def __init__(self, edits: _Optional[_Iterable[_Union[SteeringEdit, _Mapping]]] = ..., conflict: _Optional[_Union[Conflict, str]] = ..., abort_when: _Optional[_Iterable[_Union[FeatureCondition, _Mapping]]] = ...) -> None: ...

class LayerProof(_message.Message):
    __slots__ = ("layer", "prompt_positions", "generated_positions", "skipped_positions", "mean_relative_change", "max_relative_change")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    PROMPT_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    MEAN_RELATIVE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    MAX_RELATIVE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    layer: int
    prompt_positions: int
    generated_positions: int
    skipped_positions: int
    mean_relative_change: float
    max_relative_change: float
    def __init__(self, layer: _Optional[int] = ..., prompt_positions: _Optional[int] = ..., generated_positions: _Optional[int] = ..., skipped_positions: _Optional[int] = ..., mean_relative_change: _Optional[float] = ..., max_relative_change: _Optional[float] = ...) -> None: ...

class SteeringProof(_message.Message):
    __slots__ = ("layers", "forward_passes", "spec_hash")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_PASSES_FIELD_NUMBER: _ClassVar[int]
    SPEC_HASH_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[LayerProof]
    forward_passes: int
    spec_hash: str
    def __init__(self, layers: _Optional[_Iterable[_Union[LayerProof, _Mapping]]] = ..., forward_passes: _Optional[int] = ..., spec_hash: _Optional[str] = ...) -> None: ...
