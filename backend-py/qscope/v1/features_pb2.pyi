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

class ContrastScore(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTRAST_SCORE_UNSPECIFIED: _ClassVar[ContrastScore]
    CONTRAST_SCORE_MEAN_DIFFERENCE: _ClassVar[ContrastScore]
    CONTRAST_SCORE_RATE_DIFFERENCE: _ClassVar[ContrastScore]

class ContrastUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTRAST_UNIT_UNSPECIFIED: _ClassVar[ContrastUnit]
    CONTRAST_UNIT_TOKEN: _ClassVar[ContrastUnit]
    CONTRAST_UNIT_DOCUMENT_MEAN: _ClassVar[ContrastUnit]
    CONTRAST_UNIT_DOCUMENT_MAX: _ClassVar[ContrastUnit]

class ActivationFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_FORMAT_UNSPECIFIED: _ClassVar[ActivationFormat]
    ACTIVATION_FORMAT_SAFETENSORS: _ClassVar[ActivationFormat]
    ACTIVATION_FORMAT_PARQUET: _ClassVar[ActivationFormat]

class LoopOrigin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOOP_ORIGIN_UNSPECIFIED: _ClassVar[LoopOrigin]
    LOOP_ORIGIN_GENERATED: _ClassVar[LoopOrigin]
    LOOP_ORIGIN_GIVEN: _ClassVar[LoopOrigin]
    LOOP_ORIGIN_MADE: _ClassVar[LoopOrigin]
CONTRAST_SCORE_UNSPECIFIED: ContrastScore
CONTRAST_SCORE_MEAN_DIFFERENCE: ContrastScore
CONTRAST_SCORE_RATE_DIFFERENCE: ContrastScore
CONTRAST_UNIT_UNSPECIFIED: ContrastUnit
CONTRAST_UNIT_TOKEN: ContrastUnit
CONTRAST_UNIT_DOCUMENT_MEAN: ContrastUnit
CONTRAST_UNIT_DOCUMENT_MAX: ContrastUnit
ACTIVATION_FORMAT_UNSPECIFIED: ActivationFormat
ACTIVATION_FORMAT_SAFETENSORS: ActivationFormat
ACTIVATION_FORMAT_PARQUET: ActivationFormat
LOOP_ORIGIN_UNSPECIFIED: LoopOrigin
LOOP_ORIGIN_GENERATED: LoopOrigin
LOOP_ORIGIN_GIVEN: LoopOrigin
LOOP_ORIGIN_MADE: LoopOrigin

class ModelRecord(_message.Message):
    __slots__ = ("name", "commit", "architecture", "n_layers", "d_model", "dtype", "tuning", "fingerprint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    N_LAYERS_FIELD_NUMBER: _ClassVar[int]
    D_MODEL_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TUNING_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    commit: str
    architecture: str
    n_layers: int
    d_model: int
    dtype: str
    tuning: str
    fingerprint: str
    def __init__(self, name: _Optional[str] = ..., commit: _Optional[str] = ..., architecture: _Optional[str] = ..., n_layers: _Optional[int] = ..., d_model: _Optional[int] = ..., dtype: _Optional[str] = ..., tuning: _Optional[str] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class SaeRecord(_message.Message):
    __slots__ = ("layer", "d_in", "d_sae", "k", "fingerprint")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    D_IN_FIELD_NUMBER: _ClassVar[int]
    D_SAE_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    layer: int
    d_in: int
    d_sae: int
    k: int
    fingerprint: str
    def __init__(self, layer: _Optional[int] = ..., d_in: _Optional[int] = ..., d_sae: _Optional[int] = ..., k: _Optional[int] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class FeatureEntry(_message.Message):
    __slots__ = ("layer", "feature", "score", "held_out_score", "mean_positive", "mean_negative", "rate_positive", "rate_negative", "max_activation", "median_residual_norm", "held_out_auc", "auc_low", "auc_high", "n_positive", "n_negative", "label", "class_means", "class_alphas", "curve", "group")
    class ClassMeansEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ClassAlphasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    LAYER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_SCORE_FIELD_NUMBER: _ClassVar[int]
    MEAN_POSITIVE_FIELD_NUMBER: _ClassVar[int]
    MEAN_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    RATE_POSITIVE_FIELD_NUMBER: _ClassVar[int]
    RATE_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    MAX_ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_RESIDUAL_NORM_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_AUC_FIELD_NUMBER: _ClassVar[int]
    AUC_LOW_FIELD_NUMBER: _ClassVar[int]
    AUC_HIGH_FIELD_NUMBER: _ClassVar[int]
    N_POSITIVE_FIELD_NUMBER: _ClassVar[int]
    N_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CLASS_MEANS_FIELD_NUMBER: _ClassVar[int]
    CLASS_ALPHAS_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    layer: int
    feature: int
    score: float
    held_out_score: float
    mean_positive: float
    mean_negative: float
    rate_positive: float
    rate_negative: float
    max_activation: float
    median_residual_norm: float
    held_out_auc: float
    auc_low: float
    auc_high: float
    n_positive: int
    n_negative: int
    label: str
    class_means: _containers.ScalarMap[str, float]
    class_alphas: _containers.ScalarMap[str, float]
    curve: _containers.RepeatedScalarFieldContainer[float]
    group: str
    def __init__(self, layer: _Optional[int] = ..., feature: _Optional[int] = ..., score: _Optional[float] = ..., held_out_score: _Optional[float] = ..., mean_positive: _Optional[float] = ..., mean_negative: _Optional[float] = ..., rate_positive: _Optional[float] = ..., rate_negative: _Optional[float] = ..., max_activation: _Optional[float] = ..., median_residual_norm: _Optional[float] = ..., held_out_auc: _Optional[float] = ..., auc_low: _Optional[float] = ..., auc_high: _Optional[float] = ..., n_positive: _Optional[int] = ..., n_negative: _Optional[int] = ..., label: _Optional[str] = ..., class_means: _Optional[_Mapping[str, float]] = ..., class_alphas: _Optional[_Mapping[str, float]] = ..., curve: _Optional[_Iterable[float]] = ..., group: _Optional[str] = ...) -> None: ...

class FeatureSet(_message.Message):
    __slots__ = ("kind", "model", "sae", "entries", "model_record", "sae_records", "score", "tokens", "qscope_version")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MODEL_RECORD_FIELD_NUMBER: _ClassVar[int]
    SAE_RECORDS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    QSCOPE_VERSION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    model: str
    sae: str
    entries: _containers.RepeatedCompositeFieldContainer[FeatureEntry]
    model_record: ModelRecord
    sae_records: _containers.RepeatedCompositeFieldContainer[SaeRecord]
    score: str
    tokens: str
    qscope_version: str
    def __init__(self, kind: _Optional[str] = ..., model: _Optional[str] = ..., sae: _Optional[str] = ..., entries: _Optional[_Iterable[_Union[FeatureEntry, _Mapping]]] = ..., model_record: _Optional[_Union[ModelRecord, _Mapping]] = ..., sae_records: _Optional[_Iterable[_Union[SaeRecord, _Mapping]]] = ..., score: _Optional[str] = ..., tokens: _Optional[str] = ..., qscope_version: _Optional[str] = ...) -> None: ...

class Rendering(_message.Message):
    __slots__ = ("chat", "thinking")
    CHAT_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    chat: bool
    thinking: bool
    def __init__(self, chat: _Optional[bool] = ..., thinking: _Optional[bool] = ...) -> None: ...

class TokenMasks(_message.Message):
    __slots__ = ("skip_first_token", "skip_special_tokens", "skip_thinking")
    SKIP_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SKIP_SPECIAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SKIP_THINKING_FIELD_NUMBER: _ClassVar[int]
    skip_first_token: bool
    skip_special_tokens: bool
    skip_thinking: bool
    def __init__(self, skip_first_token: _Optional[bool] = ..., skip_special_tokens: _Optional[bool] = ..., skip_thinking: _Optional[bool] = ...) -> None: ...

class ContrastFeatures(_message.Message):
    __slots__ = ("sae", "positives", "negatives", "layers", "rendering", "masks", "documents", "held_out_share", "score", "unit", "top", "ambient_share", "model_batch_tokens", "label")
    SAE_FIELD_NUMBER: _ClassVar[int]
    POSITIVES_FIELD_NUMBER: _ClassVar[int]
    NEGATIVES_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_SHARE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    AMBIENT_SHARE_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    sae: str
    positives: _text_pb2.TextSource
    negatives: _text_pb2.TextSource
    layers: _containers.RepeatedScalarFieldContainer[int]
    rendering: Rendering
    masks: TokenMasks
    documents: int
    held_out_share: float
    score: ContrastScore
    unit: ContrastUnit
    top: int
    ambient_share: float
    model_batch_tokens: int
    label: str
    def __init__(self, sae: _Optional[str] = ..., positives: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., negatives: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., layers: _Optional[_Iterable[int]] = ..., rendering: _Optional[_Union[Rendering, _Mapping]] = ..., masks: _Optional[_Union[TokenMasks, _Mapping]] = ..., documents: _Optional[int] = ..., held_out_share: _Optional[float] = ..., score: _Optional[_Union[ContrastScore, str]] = ..., unit: _Optional[_Union[ContrastUnit, str]] = ..., top: _Optional[int] = ..., ambient_share: _Optional[float] = ..., model_batch_tokens: _Optional[int] = ..., label: _Optional[str] = ...) -> None: ...

class ExtractFeatures(_message.Message):
    __slots__ = ("sae", "text", "layers", "rendering", "masks", "documents", "shard_documents", "format", "model_batch_tokens")
    SAE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    SHARD_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    text: _text_pb2.TextSource
    layers: _containers.RepeatedScalarFieldContainer[int]
    rendering: Rendering
    masks: TokenMasks
    documents: int
    shard_documents: int
    format: ActivationFormat
    model_batch_tokens: int
    def __init__(self, sae: _Optional[str] = ..., text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., layers: _Optional[_Iterable[int]] = ..., rendering: _Optional[_Union[Rendering, _Mapping]] = ..., masks: _Optional[_Union[TokenMasks, _Mapping]] = ..., documents: _Optional[int] = ..., shard_documents: _Optional[int] = ..., format: _Optional[_Union[ActivationFormat, str]] = ..., model_batch_tokens: _Optional[int] = ...) -> None: ...

class TopFeatures(_message.Message):
    __slots__ = ("sae", "text", "activations", "features", "feature_set", "rendering", "masks", "documents", "contexts", "before", "after", "model_batch_tokens")
    SAE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SET_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    text: _text_pb2.TextSource
    activations: str
    features: _containers.RepeatedScalarFieldContainer[str]
    feature_set: str
    rendering: Rendering
    masks: TokenMasks
    documents: int
    contexts: int
    before: int
    after: int
    model_batch_tokens: int
    def __init__(self, sae: _Optional[str] = ..., text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., activations: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., feature_set: _Optional[str] = ..., rendering: _Optional[_Union[Rendering, _Mapping]] = ..., masks: _Optional[_Union[TokenMasks, _Mapping]] = ..., documents: _Optional[int] = ..., contexts: _Optional[int] = ..., before: _Optional[int] = ..., after: _Optional[int] = ..., model_batch_tokens: _Optional[int] = ...) -> None: ...

class FeatureContext(_message.Message):
    __slots__ = ("document", "position", "activation", "text", "tokens", "activations", "peak")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATIONS_FIELD_NUMBER: _ClassVar[int]
    PEAK_FIELD_NUMBER: _ClassVar[int]
    document: int
    position: int
    activation: float
    text: str
    tokens: _containers.RepeatedScalarFieldContainer[str]
    activations: _containers.RepeatedScalarFieldContainer[float]
    peak: int
    def __init__(self, document: _Optional[int] = ..., position: _Optional[int] = ..., activation: _Optional[float] = ..., text: _Optional[str] = ..., tokens: _Optional[_Iterable[str]] = ..., activations: _Optional[_Iterable[float]] = ..., peak: _Optional[int] = ...) -> None: ...

class FeatureContexts(_message.Message):
    __slots__ = ("layer", "feature", "label", "rate", "mean", "max_activation", "tokens", "contexts")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    MAX_ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    layer: int
    feature: int
    label: str
    rate: float
    mean: float
    max_activation: float
    tokens: int
    contexts: _containers.RepeatedCompositeFieldContainer[FeatureContext]
    def __init__(self, layer: _Optional[int] = ..., feature: _Optional[int] = ..., label: _Optional[str] = ..., rate: _Optional[float] = ..., mean: _Optional[float] = ..., max_activation: _Optional[float] = ..., tokens: _Optional[int] = ..., contexts: _Optional[_Iterable[_Union[FeatureContext, _Mapping]]] = ...) -> None: ...

class ContextSet(_message.Message):
    __slots__ = ("model", "sae", "features", "model_record", "sae_records", "tokens", "qscope_version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MODEL_RECORD_FIELD_NUMBER: _ClassVar[int]
    SAE_RECORDS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    QSCOPE_VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    sae: str
    features: _containers.RepeatedCompositeFieldContainer[FeatureContexts]
    model_record: ModelRecord
    sae_records: _containers.RepeatedCompositeFieldContainer[SaeRecord]
    tokens: str
    qscope_version: str
    def __init__(self, model: _Optional[str] = ..., sae: _Optional[str] = ..., features: _Optional[_Iterable[_Union[FeatureContexts, _Mapping]]] = ..., model_record: _Optional[_Union[ModelRecord, _Mapping]] = ..., sae_records: _Optional[_Iterable[_Union[SaeRecord, _Mapping]]] = ..., tokens: _Optional[str] = ..., qscope_version: _Optional[str] = ...) -> None: ...

class LanguageFeatures(_message.Message):
    __slots__ = ("sae", "text", "language_field", "languages", "layers", "rendering", "masks", "documents", "held_out_share", "top", "ambient_share", "model_batch_tokens")
    SAE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_SHARE_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    AMBIENT_SHARE_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    text: _text_pb2.TextSource
    language_field: str
    languages: _containers.RepeatedScalarFieldContainer[str]
    layers: _containers.RepeatedScalarFieldContainer[int]
    rendering: Rendering
    masks: TokenMasks
    documents: int
    held_out_share: float
    top: int
    ambient_share: float
    model_batch_tokens: int
    def __init__(self, sae: _Optional[str] = ..., text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., language_field: _Optional[str] = ..., languages: _Optional[_Iterable[str]] = ..., layers: _Optional[_Iterable[int]] = ..., rendering: _Optional[_Union[Rendering, _Mapping]] = ..., masks: _Optional[_Union[TokenMasks, _Mapping]] = ..., documents: _Optional[int] = ..., held_out_share: _Optional[float] = ..., top: _Optional[int] = ..., ambient_share: _Optional[float] = ..., model_batch_tokens: _Optional[int] = ...) -> None: ...

class RepetitionFeatures(_message.Message):
    __slots__ = ("sae", "text", "loops", "layers", "rendering", "masks", "documents", "prefix_tokens", "new_tokens", "period_tokens", "repetitions", "held_out_share", "top", "ambient_share", "model_batch_tokens")
    SAE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOOPS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PERIOD_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REPETITIONS_FIELD_NUMBER: _ClassVar[int]
    HELD_OUT_SHARE_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    AMBIENT_SHARE_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    text: _text_pb2.TextSource
    loops: LoopOrigin
    layers: _containers.RepeatedScalarFieldContainer[int]
    rendering: Rendering
    masks: TokenMasks
    documents: int
    prefix_tokens: int
    new_tokens: int
    period_tokens: int
    repetitions: int
    held_out_share: float
    top: int
    ambient_share: float
    model_batch_tokens: int
    def __init__(self, sae: _Optional[str] = ..., text: _Optional[_Union[_text_pb2.TextSource, _Mapping]] = ..., loops: _Optional[_Union[LoopOrigin, str]] = ..., layers: _Optional[_Iterable[int]] = ..., rendering: _Optional[_Union[Rendering, _Mapping]] = ..., masks: _Optional[_Union[TokenMasks, _Mapping]] = ..., documents: _Optional[int] = ..., prefix_tokens: _Optional[int] = ..., new_tokens: _Optional[int] = ..., period_tokens: _Optional[int] = ..., repetitions: _Optional[int] = ..., held_out_share: _Optional[float] = ..., top: _Optional[int] = ..., ambient_share: _Optional[float] = ..., model_batch_tokens: _Optional[int] = ...) -> None: ...
