from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import chat_pb2 as _chat_pb2
from qscope.v1 import features_pb2 as _features_pb2
from qscope.v1 import options_pb2 as _options_pb2
from qscope.v1 import text_pb2 as _text_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LabelWriter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_WRITER_UNSPECIFIED: _ClassVar[LabelWriter]
    LABEL_WRITER_OFFLINE: _ClassVar[LabelWriter]
    LABEL_WRITER_ENDPOINT: _ClassVar[LabelWriter]
LABEL_WRITER_UNSPECIFIED: LabelWriter
LABEL_WRITER_OFFLINE: LabelWriter
LABEL_WRITER_ENDPOINT: LabelWriter

class ExplainFeatures(_message.Message):
    __slots__ = ("sae", "text", "features", "feature_set", "rendering", "masks", "documents", "shown", "tested", "before", "after", "model_batch_tokens", "writer", "endpoint", "label_tokens")
    SAE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SET_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    TESTED_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    LABEL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    text: _text_pb2.TextSource
    features: _containers.RepeatedScalarFieldContainer[str]
    feature_set: str
    rendering: _features_pb2.Rendering
    masks: _features_pb2.TokenMasks
    documents: int
    shown: int
    tested: int
    before: int
    after: int
    model_batch_tokens: int
    writer: LabelWriter
    endpoint: _chat_pb2.ChatEndpoint
    label_tokens: int
    def __init__(self, sae: _Optional[str] = ..., text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., features: _Optional[_Iterable[str]] = ..., feature_set: _Optional[str] = ..., rendering: _Optional[_Union[_features_pb2.Rendering, _Mapping]] = ..., masks: _Optional[_Union[_features_pb2.TokenMasks, _Mapping]] = ..., documents: _Optional[int] = ..., shown: _Optional[int] = ..., tested: _Optional[int] = ..., before: _Optional[int] = ..., after: _Optional[int] = ..., model_batch_tokens: _Optional[int] = ..., writer: _Optional[_Union[LabelWriter, str]] = ..., endpoint: _Optional[_Union[_chat_pb2.ChatEndpoint, _Mapping]] = ..., label_tokens: _Optional[int] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("layer", "feature", "label", "fires_on", "promotes", "recall", "specificity", "balanced_accuracy", "low", "high", "n_active", "n_silent", "unanswered", "foreign_accuracy", "rate", "max_activation", "shown")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    FIRES_ON_FIELD_NUMBER: _ClassVar[int]
    PROMOTES_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    SPECIFICITY_FIELD_NUMBER: _ClassVar[int]
    BALANCED_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    N_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    N_SILENT_FIELD_NUMBER: _ClassVar[int]
    UNANSWERED_FIELD_NUMBER: _ClassVar[int]
    FOREIGN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    MAX_ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    layer: int
    feature: int
    label: str
    fires_on: _containers.RepeatedScalarFieldContainer[str]
    promotes: _containers.RepeatedScalarFieldContainer[str]
    recall: float
    specificity: float
    balanced_accuracy: float
    low: float
    high: float
    n_active: int
    n_silent: int
    unanswered: int
    foreign_accuracy: float
    rate: float
    max_activation: float
    shown: _containers.RepeatedCompositeFieldContainer[_features_pb2.FeatureContext]
    def __init__(self, layer: _Optional[int] = ..., feature: _Optional[int] = ..., label: _Optional[str] = ..., fires_on: _Optional[_Iterable[str]] = ..., promotes: _Optional[_Iterable[str]] = ..., recall: _Optional[float] = ..., specificity: _Optional[float] = ..., balanced_accuracy: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., n_active: _Optional[int] = ..., n_silent: _Optional[int] = ..., unanswered: _Optional[int] = ..., foreign_accuracy: _Optional[float] = ..., rate: _Optional[float] = ..., max_activation: _Optional[float] = ..., shown: _Optional[_Iterable[_Union[_features_pb2.FeatureContext, _Mapping]]] = ...) -> None: ...

class ExplanationSet(_message.Message):
    __slots__ = ("model", "sae", "writer", "explanations", "model_record", "sae_records", "tokens", "qscope_version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_RECORD_FIELD_NUMBER: _ClassVar[int]
    SAE_RECORDS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    QSCOPE_VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    sae: str
    writer: str
    explanations: _containers.RepeatedCompositeFieldContainer[Explanation]
    model_record: _features_pb2.ModelRecord
    sae_records: _containers.RepeatedCompositeFieldContainer[_features_pb2.SaeRecord]
    tokens: str
    qscope_version: str
    def __init__(self, model: _Optional[str] = ..., sae: _Optional[str] = ..., writer: _Optional[str] = ..., explanations: _Optional[_Iterable[_Union[Explanation, _Mapping]]] = ..., model_record: _Optional[_Union[_features_pb2.ModelRecord, _Mapping]] = ..., sae_records: _Optional[_Iterable[_Union[_features_pb2.SaeRecord, _Mapping]]] = ..., tokens: _Optional[str] = ..., qscope_version: _Optional[str] = ...) -> None: ...
