from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAIN_METHOD_UNSPECIFIED: _ClassVar[TrainMethod]
    TRAIN_METHOD_FULL: _ClassVar[TrainMethod]
    TRAIN_METHOD_LORA: _ClassVar[TrainMethod]

class LearningRateDecay(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEARNING_RATE_DECAY_UNSPECIFIED: _ClassVar[LearningRateDecay]
    LEARNING_RATE_DECAY_CONSTANT: _ClassVar[LearningRateDecay]
    LEARNING_RATE_DECAY_COSINE: _ClassVar[LearningRateDecay]
    LEARNING_RATE_DECAY_LINEAR: _ClassVar[LearningRateDecay]

class AlarmAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALARM_ACTION_UNSPECIFIED: _ClassVar[AlarmAction]
    ALARM_ACTION_WARN: _ClassVar[AlarmAction]
    ALARM_ACTION_STOP: _ClassVar[AlarmAction]
    ALARM_ACTION_OFF: _ClassVar[AlarmAction]

class FeatureThreshold(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_THRESHOLD_UNSPECIFIED: _ClassVar[FeatureThreshold]
    FEATURE_THRESHOLD_MEAN: _ClassVar[FeatureThreshold]
    FEATURE_THRESHOLD_ZERO: _ClassVar[FeatureThreshold]

class FeatureReduction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_REDUCTION_UNSPECIFIED: _ClassVar[FeatureReduction]
    FEATURE_REDUCTION_MEAN: _ClassVar[FeatureReduction]
    FEATURE_REDUCTION_SUM: _ClassVar[FeatureReduction]
TRAIN_METHOD_UNSPECIFIED: TrainMethod
TRAIN_METHOD_FULL: TrainMethod
TRAIN_METHOD_LORA: TrainMethod
LEARNING_RATE_DECAY_UNSPECIFIED: LearningRateDecay
LEARNING_RATE_DECAY_CONSTANT: LearningRateDecay
LEARNING_RATE_DECAY_COSINE: LearningRateDecay
LEARNING_RATE_DECAY_LINEAR: LearningRateDecay
ALARM_ACTION_UNSPECIFIED: AlarmAction
ALARM_ACTION_WARN: AlarmAction
ALARM_ACTION_STOP: AlarmAction
ALARM_ACTION_OFF: AlarmAction
FEATURE_THRESHOLD_UNSPECIFIED: FeatureThreshold
FEATURE_THRESHOLD_MEAN: FeatureThreshold
FEATURE_THRESHOLD_ZERO: FeatureThreshold
FEATURE_REDUCTION_UNSPECIFIED: FeatureReduction
FEATURE_REDUCTION_MEAN: FeatureReduction
FEATURE_REDUCTION_SUM: FeatureReduction

class TrainRows(_message.Message):
    __slots__ = ("source", "messages", "prompt", "completion", "text", "answer", "language", "columns", "records", "where", "skip", "limit", "config", "split", "revision")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    source: str
    messages: str
    prompt: str
    completion: str
    text: str
    answer: str
    language: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    records: str
    where: str
    skip: int
    limit: int
    config: str
    split: str
    revision: str
    def __init__(self, source: _Optional[str] = ..., messages: _Optional[str] = ..., prompt: _Optional[str] = ..., completion: _Optional[str] = ..., text: _Optional[str] = ..., answer: _Optional[str] = ..., language: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ..., records: _Optional[str] = ..., where: _Optional[str] = ..., skip: _Optional[int] = ..., limit: _Optional[int] = ..., config: _Optional[str] = ..., split: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class Lora(_message.Message):
    __slots__ = ("rank", "alpha", "dropout", "targets", "merge")
    RANK_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    rank: int
    alpha: float
    dropout: float
    targets: _containers.RepeatedScalarFieldContainer[str]
    merge: bool
    def __init__(self, rank: _Optional[int] = ..., alpha: _Optional[float] = ..., dropout: _Optional[float] = ..., targets: _Optional[_Iterable[str]] = ..., merge: _Optional[bool] = ...) -> None: ...

class Trainable(_message.Message):
    __slots__ = ("method", "lora", "layers", "gradient_checkpointing")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    LORA_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_CHECKPOINTING_FIELD_NUMBER: _ClassVar[int]
    method: TrainMethod
    lora: Lora
    layers: _containers.RepeatedScalarFieldContainer[int]
    gradient_checkpointing: bool
    def __init__(self, method: _Optional[_Union[TrainMethod, str]] = ..., lora: _Optional[_Union[Lora, _Mapping]] = ..., layers: _Optional[_Iterable[int]] = ..., gradient_checkpointing: _Optional[bool] = ...) -> None: ...

class TuningOptimizer(_message.Message):
    __slots__ = ("learning_rate", "decay", "warmup_steps", "weight_decay", "beta1", "beta2", "max_grad_norm")
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    DECAY_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    MAX_GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    learning_rate: float
    decay: LearningRateDecay
    warmup_steps: int
    weight_decay: float
    beta1: float
    beta2: float
    max_grad_norm: float
    def __init__(self, learning_rate: _Optional[float] = ..., decay: _Optional[_Union[LearningRateDecay, str]] = ..., warmup_steps: _Optional[int] = ..., weight_decay: _Optional[float] = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., max_grad_norm: _Optional[float] = ...) -> None: ...

class Alarms(_message.Message):
    __slots__ = ("patience", "dead_signal", "zero_reward_std", "all_truncated", "collapse", "grader_failures", "grader_failure_share")
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    DEAD_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    ZERO_REWARD_STD_FIELD_NUMBER: _ClassVar[int]
    ALL_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    COLLAPSE_FIELD_NUMBER: _ClassVar[int]
    GRADER_FAILURES_FIELD_NUMBER: _ClassVar[int]
    GRADER_FAILURE_SHARE_FIELD_NUMBER: _ClassVar[int]
    patience: int
    dead_signal: AlarmAction
    zero_reward_std: AlarmAction
    all_truncated: AlarmAction
    collapse: AlarmAction
    grader_failures: AlarmAction
    grader_failure_share: float
    def __init__(self, patience: _Optional[int] = ..., dead_signal: _Optional[_Union[AlarmAction, str]] = ..., zero_reward_std: _Optional[_Union[AlarmAction, str]] = ..., all_truncated: _Optional[_Union[AlarmAction, str]] = ..., collapse: _Optional[_Union[AlarmAction, str]] = ..., grader_failures: _Optional[_Union[AlarmAction, str]] = ..., grader_failure_share: _Optional[float] = ...) -> None: ...
