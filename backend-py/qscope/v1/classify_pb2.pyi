from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import features_pb2 as _features_pb2
from qscope.v1 import options_pb2 as _options_pb2
from qscope.v1 import redundancy_pb2 as _redundancy_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SplitUse(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPLIT_USE_UNSPECIFIED: _ClassVar[SplitUse]
    SPLIT_USE_SPLIT: _ClassVar[SplitUse]
    SPLIT_USE_DISCOVERY: _ClassVar[SplitUse]
    SPLIT_USE_EVALUATION: _ClassVar[SplitUse]
SPLIT_USE_UNSPECIFIED: SplitUse
SPLIT_USE_SPLIT: SplitUse
SPLIT_USE_DISCOVERY: SplitUse
SPLIT_USE_EVALUATION: SplitUse

class LabelledSource(_message.Message):
    __slots__ = ("source", "text", "label", "positive", "negative", "language", "use", "columns", "records", "where", "limit", "format", "config", "split", "revision")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    source: str
    text: str
    label: str
    positive: _containers.RepeatedScalarFieldContainer[str]
    negative: _containers.RepeatedScalarFieldContainer[str]
    language: str
    use: SplitUse
    columns: _containers.RepeatedScalarFieldContainer[str]
    records: str
    where: str
    limit: int
    format: str
    config: str
    split: str
    revision: str
    def __init__(self, source: _Optional[str] = ..., text: _Optional[str] = ..., label: _Optional[str] = ..., positive: _Optional[_Iterable[str]] = ..., negative: _Optional[_Iterable[str]] = ..., language: _Optional[str] = ..., use: _Optional[_Union[SplitUse, str]] = ..., columns: _Optional[_Iterable[str]] = ..., records: _Optional[str] = ..., where: _Optional[str] = ..., limit: _Optional[int] = ..., format: _Optional[str] = ..., config: _Optional[str] = ..., split: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class Classify(_message.Message):
    __slots__ = ("sae", "data", "attribute", "layers", "rendering", "masks", "context", "bad_rows", "evaluation_share", "calibration_share", "balance", "per_class", "features", "compose", "false_positive_rates", "curve", "draws", "bootstrap", "probe_layers", "model_batch_tokens", "shard_texts")
    SAE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    BAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_SHARE_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_SHARE_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    PER_CLASS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    COMPOSE_FIELD_NUMBER: _ClassVar[int]
    FALSE_POSITIVE_RATES_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    BOOTSTRAP_FIELD_NUMBER: _ClassVar[int]
    PROBE_LAYERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SHARD_TEXTS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    data: _containers.RepeatedCompositeFieldContainer[LabelledSource]
    attribute: str
    layers: _containers.RepeatedScalarFieldContainer[int]
    rendering: _features_pb2.Rendering
    masks: _features_pb2.TokenMasks
    context: int
    bad_rows: _redundancy_pb2.BadRows
    evaluation_share: float
    calibration_share: float
    balance: bool
    per_class: int
    features: _containers.RepeatedScalarFieldContainer[int]
    compose: _containers.RepeatedScalarFieldContainer[int]
    false_positive_rates: _containers.RepeatedScalarFieldContainer[float]
    curve: _containers.RepeatedScalarFieldContainer[float]
    draws: int
    bootstrap: int
    probe_layers: int
    model_batch_tokens: int
    shard_texts: int
    def __init__(self, sae: _Optional[str] = ..., data: _Optional[_Iterable[_Union[LabelledSource, _Mapping]]] = ..., attribute: _Optional[str] = ..., layers: _Optional[_Iterable[int]] = ..., rendering: _Optional[_Union[_features_pb2.Rendering, _Mapping]] = ..., masks: _Optional[_Union[_features_pb2.TokenMasks, _Mapping]] = ..., context: _Optional[int] = ..., bad_rows: _Optional[_Union[_redundancy_pb2.BadRows, str]] = ..., evaluation_share: _Optional[float] = ..., calibration_share: _Optional[float] = ..., balance: _Optional[bool] = ..., per_class: _Optional[int] = ..., features: _Optional[_Iterable[int]] = ..., compose: _Optional[_Iterable[int]] = ..., false_positive_rates: _Optional[_Iterable[float]] = ..., curve: _Optional[_Iterable[float]] = ..., draws: _Optional[int] = ..., bootstrap: _Optional[int] = ..., probe_layers: _Optional[int] = ..., model_batch_tokens: _Optional[int] = ..., shard_texts: _Optional[int] = ...) -> None: ...

class ApplyClassifier(_message.Message):
    __slots__ = ("classifier", "source", "text", "columns", "records", "where", "limit", "format", "keep", "false_positive_rate", "sae", "bad_rows", "model_batch_tokens", "shard_texts", "config", "split", "revision")
    CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    FALSE_POSITIVE_RATE_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    BAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SHARD_TEXTS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    classifier: str
    source: str
    text: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    records: str
    where: str
    limit: int
    format: str
    keep: _containers.RepeatedScalarFieldContainer[str]
    false_positive_rate: float
    sae: str
    bad_rows: _redundancy_pb2.BadRows
    model_batch_tokens: int
    shard_texts: int
    config: str
    split: str
    revision: str
    def __init__(self, classifier: _Optional[str] = ..., source: _Optional[str] = ..., text: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ..., records: _Optional[str] = ..., where: _Optional[str] = ..., limit: _Optional[int] = ..., format: _Optional[str] = ..., keep: _Optional[_Iterable[str]] = ..., false_positive_rate: _Optional[float] = ..., sae: _Optional[str] = ..., bad_rows: _Optional[_Union[_redundancy_pb2.BadRows, str]] = ..., model_batch_tokens: _Optional[int] = ..., shard_texts: _Optional[int] = ..., config: _Optional[str] = ..., split: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class ClassifierFeature(_message.Message):
    __slots__ = ("layer", "feature", "rate_positive", "rate_negative")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    RATE_POSITIVE_FIELD_NUMBER: _ClassVar[int]
    RATE_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    layer: int
    feature: int
    rate_positive: float
    rate_negative: float
    def __init__(self, layer: _Optional[int] = ..., feature: _Optional[int] = ..., rate_positive: _Optional[float] = ..., rate_negative: _Optional[float] = ...) -> None: ...

class OperatingPoint(_message.Message):
    __slots__ = ("false_positive_rate", "level", "thresholds", "calibrated_rate", "n_negative")
    FALSE_POSITIVE_RATE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_RATE_FIELD_NUMBER: _ClassVar[int]
    N_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    false_positive_rate: float
    level: float
    thresholds: _containers.RepeatedScalarFieldContainer[float]
    calibrated_rate: float
    n_negative: int
    def __init__(self, false_positive_rate: _Optional[float] = ..., level: _Optional[float] = ..., thresholds: _Optional[_Iterable[float]] = ..., calibrated_rate: _Optional[float] = ..., n_negative: _Optional[int] = ...) -> None: ...

class Classifier(_message.Message):
    __slots__ = ("attribute", "language", "model", "sae", "saes", "features", "points", "rendering", "masks", "context", "n_positive", "n_negative", "discovery_digest", "qscope_version")
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    SAES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    N_POSITIVE_FIELD_NUMBER: _ClassVar[int]
    N_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    DISCOVERY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    QSCOPE_VERSION_FIELD_NUMBER: _ClassVar[int]
    attribute: str
    language: str
    model: _features_pb2.ModelRecord
    sae: str
    saes: _containers.RepeatedCompositeFieldContainer[_features_pb2.SaeRecord]
    features: _containers.RepeatedCompositeFieldContainer[ClassifierFeature]
    points: _containers.RepeatedCompositeFieldContainer[OperatingPoint]
    rendering: _features_pb2.Rendering
    masks: _features_pb2.TokenMasks
    context: int
    n_positive: int
    n_negative: int
    discovery_digest: str
    qscope_version: str
    def __init__(self, attribute: _Optional[str] = ..., language: _Optional[str] = ..., model: _Optional[_Union[_features_pb2.ModelRecord, _Mapping]] = ..., sae: _Optional[str] = ..., saes: _Optional[_Iterable[_Union[_features_pb2.SaeRecord, _Mapping]]] = ..., features: _Optional[_Iterable[_Union[ClassifierFeature, _Mapping]]] = ..., points: _Optional[_Iterable[_Union[OperatingPoint, _Mapping]]] = ..., rendering: _Optional[_Union[_features_pb2.Rendering, _Mapping]] = ..., masks: _Optional[_Union[_features_pb2.TokenMasks, _Mapping]] = ..., context: _Optional[int] = ..., n_positive: _Optional[int] = ..., n_negative: _Optional[int] = ..., discovery_digest: _Optional[str] = ..., qscope_version: _Optional[str] = ...) -> None: ...
