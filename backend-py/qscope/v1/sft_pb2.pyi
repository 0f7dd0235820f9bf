from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import generation_pb2 as _generation_pb2
from qscope.v1 import options_pb2 as _options_pb2
from qscope.v1 import posttraining_pb2 as _posttraining_pb2
from qscope.v1 import sae_pb2 as _sae_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SaeLossPreset(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAE_LOSS_PRESET_UNSPECIFIED: _ClassVar[SaeLossPreset]
    SAE_LOSS_PRESET_GLOBAL_TOKENS: _ClassVar[SaeLossPreset]
    SAE_LOSS_PRESET_OFFICIAL_CODE: _ClassVar[SaeLossPreset]

class SftArm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SFT_ARM_UNSPECIFIED: _ClassVar[SftArm]
    SFT_ARM_SAE: _ClassVar[SftArm]
    SFT_ARM_PLAIN: _ClassVar[SftArm]
    SFT_ARM_RANDOM_FEATURES: _ClassVar[SftArm]
    SFT_ARM_KL: _ClassVar[SftArm]
    SFT_ARM_ENTROPY: _ClassVar[SftArm]
    SFT_ARM_FILTER: _ClassVar[SftArm]
    SFT_ARM_TOKEN_PROBABILITY: _ClassVar[SftArm]
SAE_LOSS_PRESET_UNSPECIFIED: SaeLossPreset
SAE_LOSS_PRESET_GLOBAL_TOKENS: SaeLossPreset
SAE_LOSS_PRESET_OFFICIAL_CODE: SaeLossPreset
SFT_ARM_UNSPECIFIED: SftArm
SFT_ARM_SAE: SftArm
SFT_ARM_PLAIN: SftArm
SFT_ARM_RANDOM_FEATURES: SftArm
SFT_ARM_KL: SftArm
SFT_ARM_ENTROPY: SftArm
SFT_ARM_FILTER: SftArm
SFT_ARM_TOKEN_PROBABILITY: SftArm

class SaeLoss(_message.Message):
    __slots__ = ("sae", "features", "target_languages", "layers", "top_k", "threshold", "weight", "feature_reduction", "preset", "exclude_target")
    SAE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    FEATURE_REDUCTION_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_TARGET_FIELD_NUMBER: _ClassVar[int]
    sae: str
    features: str
    target_languages: _containers.RepeatedScalarFieldContainer[str]
    layers: _containers.RepeatedScalarFieldContainer[int]
    top_k: int
    threshold: _posttraining_pb2.FeatureThreshold
    weight: float
    feature_reduction: _posttraining_pb2.FeatureReduction
    preset: SaeLossPreset
    exclude_target: bool
    def __init__(self, sae: _Optional[str] = ..., features: _Optional[str] = ..., target_languages: _Optional[_Iterable[str]] = ..., layers: _Optional[_Iterable[int]] = ..., top_k: _Optional[int] = ..., threshold: _Optional[_Union[_posttraining_pb2.FeatureThreshold, str]] = ..., weight: _Optional[float] = ..., feature_reduction: _Optional[_Union[_posttraining_pb2.FeatureReduction, str]] = ..., preset: _Optional[_Union[SaeLossPreset, str]] = ..., exclude_target: _Optional[bool] = ...) -> None: ...

class Sft(_message.Message):
    __slots__ = ("data", "held_out", "format", "context", "epochs", "steps", "micro_batch_rows", "accumulate", "packing", "trainable", "optimizer", "sae_loss", "arm", "arm_weight", "evaluate_every", "checkpoint", "metrics", "alarms")
    DATA_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    ACCUMULATE_FIELD_NUMBER: _ClassVar[int]
    PACKING_FIELD_NUMBER: _ClassVar[int]
    TRAINABLE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    SAE_LOSS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    ARM_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_EVERY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    data: _posttraining_pb2.TrainRows
    held_out: _posttraining_pb2.TrainRows
    format: _generation_pb2.PromptFormat
    context: int
    epochs: float
    steps: int
    micro_batch_rows: int
    accumulate: int
    packing: bool
    trainable: _posttraining_pb2.Trainable
    optimizer: _posttraining_pb2.TuningOptimizer
    sae_loss: SaeLoss
    arm: SftArm
    arm_weight: float
    evaluate_every: int
    checkpoint: _sae_pb2.CheckpointPolicy
    metrics: _sae_pb2.MetricSinks
    alarms: _posttraining_pb2.Alarms
    def __init__(self, data: _Optional[_Union[_posttraining_pb2.TrainRows, _Mapping]] = ..., held_out: _Optional[_Union[_posttraining_pb2.TrainRows, _Mapping]] = ..., format: _Optional[_Union[_generation_pb2.PromptFormat, _Mapping]] = ..., context: _Optional[int] = ..., epochs: _Optional[float] = ..., steps: _Optional[int] = ..., micro_batch_rows: _Optional[int] = ..., accumulate: _Optional[int] = ..., packing: _Optional[bool] = ..., trainable: _Optional[_Union[_posttraining_pb2.Trainable, _Mapping]] = ..., optimizer: _Optional[_Union[_posttraining_pb2.TuningOptimizer, _Mapping]] = ..., sae_loss: _Optional[_Union[SaeLoss, _Mapping]] = ..., arm: _Optional[_Union[SftArm, str]] = ..., arm_weight: _Optional[float] = ..., evaluate_every: _Optional[int] = ..., checkpoint: _Optional[_Union[_sae_pb2.CheckpointPolicy, _Mapping]] = ..., metrics: _Optional[_Union[_sae_pb2.MetricSinks, _Mapping]] = ..., alarms: _Optional[_Union[_posttraining_pb2.Alarms, _Mapping]] = ...) -> None: ...
