from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import options_pb2 as _options_pb2
from qscope.v1 import text_pb2 as _text_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SaeFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAE_FORMAT_UNSPECIFIED: _ClassVar[SaeFormat]
    SAE_FORMAT_NATIVE: _ClassVar[SaeFormat]
    SAE_FORMAT_QWEN_SCOPE: _ClassVar[SaeFormat]
    SAE_FORMAT_SAELENS: _ClassVar[SaeFormat]

class SaeKernel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAE_KERNEL_UNSPECIFIED: _ClassVar[SaeKernel]
    SAE_KERNEL_AUTO: _ClassVar[SaeKernel]
    SAE_KERNEL_DENSE: _ClassVar[SaeKernel]
    SAE_KERNEL_SPARSE: _ClassVar[SaeKernel]
SAE_FORMAT_UNSPECIFIED: SaeFormat
SAE_FORMAT_NATIVE: SaeFormat
SAE_FORMAT_QWEN_SCOPE: SaeFormat
SAE_FORMAT_SAELENS: SaeFormat
SAE_KERNEL_UNSPECIFIED: SaeKernel
SAE_KERNEL_AUTO: SaeKernel
SAE_KERNEL_DENSE: SaeKernel
SAE_KERNEL_SPARSE: SaeKernel

class SaeShape(_message.Message):
    __slots__ = ("expansion", "d_sae", "k")
    EXPANSION_FIELD_NUMBER: _ClassVar[int]
    D_SAE_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    expansion: int
    d_sae: int
    k: int
    def __init__(self, expansion: _Optional[int] = ..., d_sae: _Optional[int] = ..., k: _Optional[int] = ...) -> None: ...

class AuxK(_message.Message):
    __slots__ = ("coefficient", "k", "dead_after_tokens", "token_share")
    COEFFICIENT_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    DEAD_AFTER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_SHARE_FIELD_NUMBER: _ClassVar[int]
    coefficient: float
    k: int
    dead_after_tokens: int
    token_share: float
    def __init__(self, coefficient: _Optional[float] = ..., k: _Optional[int] = ..., dead_after_tokens: _Optional[int] = ..., token_share: _Optional[float] = ...) -> None: ...

class SaeOptimizer(_message.Message):
    __slots__ = ("learning_rate", "warmup_share", "decay_share", "beta1", "beta2", "epsilon", "clip_norm")
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_SHARE_FIELD_NUMBER: _ClassVar[int]
    DECAY_SHARE_FIELD_NUMBER: _ClassVar[int]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    learning_rate: float
    warmup_share: float
    decay_share: float
    beta1: float
    beta2: float
    epsilon: float
    clip_norm: float
    def __init__(self, learning_rate: _Optional[float] = ..., warmup_share: _Optional[float] = ..., decay_share: _Optional[float] = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., epsilon: _Optional[float] = ..., clip_norm: _Optional[float] = ...) -> None: ...

class ActivationFilter(_message.Message):
    __slots__ = ("drop_first_token", "max_norm_ratio")
    DROP_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_NORM_RATIO_FIELD_NUMBER: _ClassVar[int]
    drop_first_token: bool
    max_norm_ratio: float
    def __init__(self, drop_first_token: _Optional[bool] = ..., max_norm_ratio: _Optional[float] = ...) -> None: ...

class ActivationBuffer(_message.Message):
    __slots__ = ("tokens", "model_batch_tokens")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    model_batch_tokens: int
    def __init__(self, tokens: _Optional[int] = ..., model_batch_tokens: _Optional[int] = ...) -> None: ...

class CheckpointPolicy(_message.Message):
    __slots__ = ("every_steps", "keep")
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    every_steps: int
    keep: int
    def __init__(self, every_steps: _Optional[int] = ..., keep: _Optional[int] = ...) -> None: ...

class MetricSinks(_message.Message):
    __slots__ = ("every_steps", "tensorboard", "wandb_project")
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    TENSORBOARD_FIELD_NUMBER: _ClassVar[int]
    WANDB_PROJECT_FIELD_NUMBER: _ClassVar[int]
    every_steps: int
    tensorboard: bool
    wandb_project: str
    def __init__(self, every_steps: _Optional[int] = ..., tensorboard: _Optional[bool] = ..., wandb_project: _Optional[str] = ...) -> None: ...

class TrainSae(_message.Message):
    __slots__ = ("text", "layers", "sae", "tokens", "batch_tokens", "aux_k", "optimizer", "filter", "buffer", "checkpoint", "metrics", "formats", "kernel", "evaluate")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AUX_K_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    BUFFER_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    text: _text_pb2.TextSource
    layers: _containers.RepeatedScalarFieldContainer[int]
    sae: SaeShape
    tokens: int
    batch_tokens: int
    aux_k: AuxK
    optimizer: SaeOptimizer
    filter: ActivationFilter
    buffer: ActivationBuffer
    checkpoint: CheckpointPolicy
    metrics: MetricSinks
    formats: _containers.RepeatedScalarFieldContainer[SaeFormat]
    kernel: SaeKernel
    evaluate: HeldOut
    def __init__(self, text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., layers: _Optional[_Iterable[int]] = ..., sae: _Optional[_Union[SaeShape, _Mapping]] = ..., tokens: _Optional[int] = ..., batch_tokens: _Optional[int] = ..., aux_k: _Optional[_Union[AuxK, _Mapping]] = ..., optimizer: _Optional[_Union[SaeOptimizer, _Mapping]] = ..., filter: _Optional[_Union[ActivationFilter, _Mapping]] = ..., buffer: _Optional[_Union[ActivationBuffer, _Mapping]] = ..., checkpoint: _Optional[_Union[CheckpointPolicy, _Mapping]] = ..., metrics: _Optional[_Union[MetricSinks, _Mapping]] = ..., formats: _Optional[_Iterable[_Union[SaeFormat, str]]] = ..., kernel: _Optional[_Union[SaeKernel, str]] = ..., evaluate: _Optional[_Union[HeldOut, _Mapping]] = ...) -> None: ...

class HeldOut(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: _text_pb2.TextSource
    tokens: int
    def __init__(self, text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., tokens: _Optional[int] = ...) -> None: ...

class EvalSae(_message.Message):
    __slots__ = ("sae", "text", "layers", "tokens", "model_batch_tokens", "filter")
    SAE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    sae: str
    text: _text_pb2.TextSource
    layers: _containers.RepeatedScalarFieldContainer[int]
    tokens: int
    model_batch_tokens: int
    filter: ActivationFilter
    def __init__(self, sae: _Optional[str] = ..., text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., layers: _Optional[_Iterable[int]] = ..., tokens: _Optional[int] = ..., model_batch_tokens: _Optional[int] = ..., filter: _Optional[_Union[ActivationFilter, _Mapping]] = ...) -> None: ...
