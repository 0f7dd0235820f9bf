from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import features_pb2 as _features_pb2
from qscope.v1 import generation_pb2 as _generation_pb2
from qscope.v1 import options_pb2 as _options_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DiagnosedCase(_message.Message):
    __slots__ = ("prompt", "response")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    response: str
    def __init__(self, prompt: _Optional[str] = ..., response: _Optional[str] = ...) -> None: ...

class DiagnoseFeatures(_message.Message):
    __slots__ = ("sae", "cases", "format", "layers", "top", "baseline_tokens")
    SAE_FIELD_NUMBER: _ClassVar[int]
    CASES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    BASELINE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    cases: _containers.RepeatedCompositeFieldContainer[DiagnosedCase]
    format: _generation_pb2.PromptFormat
    layers: _containers.RepeatedScalarFieldContainer[int]
    top: int
    baseline_tokens: int
    def __init__(self, sae: _Optional[str] = ..., cases: _Optional[_Iterable[_Union[DiagnosedCase, _Mapping]]] = ..., format: _Optional[_Union[_generation_pb2.PromptFormat, _Mapping]] = ..., layers: _Optional[_Iterable[int]] = ..., top: _Optional[int] = ..., baseline_tokens: _Optional[int] = ...) -> None: ...

class DiagnosedFeature(_message.Message):
    __slots__ = ("layer", "feature", "activation", "baseline", "influence", "rate", "activation_rank", "influence_rank", "tokens")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    INFLUENCE_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_RANK_FIELD_NUMBER: _ClassVar[int]
    INFLUENCE_RANK_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    layer: int
    feature: int
    activation: float
    baseline: float
    influence: float
    rate: float
    activation_rank: int
    influence_rank: int
    tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, layer: _Optional[int] = ..., feature: _Optional[int] = ..., activation: _Optional[float] = ..., baseline: _Optional[float] = ..., influence: _Optional[float] = ..., rate: _Optional[float] = ..., activation_rank: _Optional[int] = ..., influence_rank: _Optional[int] = ..., tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class Diagnosis(_message.Message):
    __slots__ = ("model", "sae", "features", "tokens", "logprob", "qscope_version", "model_record", "sae_records", "format", "tokens_not_finite")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    QSCOPE_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_RECORD_FIELD_NUMBER: _ClassVar[int]
    SAE_RECORDS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_NOT_FINITE_FIELD_NUMBER: _ClassVar[int]
    model: str
    sae: str
    features: _containers.RepeatedCompositeFieldContainer[DiagnosedFeature]
    tokens: int
    logprob: float
    qscope_version: str
    model_record: _features_pb2.ModelRecord
    sae_records: _containers.RepeatedCompositeFieldContainer[_features_pb2.SaeRecord]
    format: _generation_pb2.PromptFormat
    tokens_not_finite: int
    def __init__(self, model: _Optional[str] = ..., sae: _Optional[str] = ..., features: _Optional[_Iterable[_Union[DiagnosedFeature, _Mapping]]] = ..., tokens: _Optional[int] = ..., logprob: _Optional[float] = ..., qscope_version: _Optional[str] = ..., model_record: _Optional[_Union[_features_pb2.ModelRecord, _Mapping]] = ..., sae_records: _Optional[_Iterable[_Union[_features_pb2.SaeRecord, _Mapping]]] = ..., format: _Optional[_Union[_generation_pb2.PromptFormat, _Mapping]] = ..., tokens_not_finite: _Optional[int] = ...) -> None: ...
