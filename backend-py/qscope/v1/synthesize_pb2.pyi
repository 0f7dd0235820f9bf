from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import chat_pb2 as _chat_pb2
from qscope.v1 import features_pb2 as _features_pb2
from qscope.v1 import generation_pb2 as _generation_pb2
from qscope.v1 import options_pb2 as _options_pb2
from qscope.v1 import redundancy_pb2 as _redundancy_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SynthesisWriter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SYNTHESIS_WRITER_UNSPECIFIED: _ClassVar[SynthesisWriter]
    SYNTHESIS_WRITER_TEMPLATES: _ClassVar[SynthesisWriter]
    SYNTHESIS_WRITER_LOCAL: _ClassVar[SynthesisWriter]
    SYNTHESIS_WRITER_ENDPOINT: _ClassVar[SynthesisWriter]
    SYNTHESIS_WRITER_NONE: _ClassVar[SynthesisWriter]

class PromptRisk(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROMPT_RISK_UNSPECIFIED: _ClassVar[PromptRisk]
    PROMPT_RISK_BENIGN: _ClassVar[PromptRisk]
    PROMPT_RISK_HARMFUL: _ClassVar[PromptRisk]
    PROMPT_RISK_JUDGED: _ClassVar[PromptRisk]

class Responder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESPONDER_UNSPECIFIED: _ClassVar[Responder]
    RESPONDER_NONE: _ClassVar[Responder]
    RESPONDER_TEMPLATE: _ClassVar[Responder]
    RESPONDER_WRITER: _ClassVar[Responder]
SYNTHESIS_WRITER_UNSPECIFIED: SynthesisWriter
SYNTHESIS_WRITER_TEMPLATES: SynthesisWriter
SYNTHESIS_WRITER_LOCAL: SynthesisWriter
SYNTHESIS_WRITER_ENDPOINT: SynthesisWriter
SYNTHESIS_WRITER_NONE: SynthesisWriter
PROMPT_RISK_UNSPECIFIED: PromptRisk
PROMPT_RISK_BENIGN: PromptRisk
PROMPT_RISK_HARMFUL: PromptRisk
PROMPT_RISK_JUDGED: PromptRisk
RESPONDER_UNSPECIFIED: Responder
RESPONDER_NONE: Responder
RESPONDER_TEMPLATE: Responder
RESPONDER_WRITER: Responder

class TextRows(_message.Message):
    __slots__ = ("source", "prompt", "columns", "records", "where", "skip", "limit", "config", "split", "revision")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    SKIP_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    source: str
    prompt: str
    columns: _containers.RepeatedScalarFieldContainer[str]
    records: str
    where: str
    skip: int
    limit: int
    config: str
    split: str
    revision: str
    def __init__(self, source: _Optional[str] = ..., prompt: _Optional[str] = ..., columns: _Optional[_Iterable[str]] = ..., records: _Optional[str] = ..., where: _Optional[str] = ..., skip: _Optional[int] = ..., limit: _Optional[int] = ..., config: _Optional[str] = ..., split: _Optional[str] = ..., revision: _Optional[str] = ...) -> None: ...

class SynthesisTargets(_message.Message):
    __slots__ = ("features", "feature_set", "explanations", "min_score", "words", "topic", "relevance", "min_texts", "max_share", "limit", "weak_share")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SET_FIELD_NUMBER: _ClassVar[int]
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    MIN_TEXTS_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WEAK_SHARE_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedScalarFieldContainer[str]
    feature_set: str
    explanations: str
    min_score: float
    words: _containers.RepeatedScalarFieldContainer[str]
    topic: str
    relevance: float
    min_texts: int
    max_share: float
    limit: int
    weak_share: float
    def __init__(self, features: _Optional[_Iterable[str]] = ..., feature_set: _Optional[str] = ..., explanations: _Optional[str] = ..., min_score: _Optional[float] = ..., words: _Optional[_Iterable[str]] = ..., topic: _Optional[str] = ..., relevance: _Optional[float] = ..., min_texts: _Optional[int] = ..., max_share: _Optional[float] = ..., limit: _Optional[int] = ..., weak_share: _Optional[float] = ...) -> None: ...

class LocalWriter(_message.Message):
    __slots__ = ("model", "format", "sampling", "steer", "start_tokens", "batch_rows")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    STEER_FIELD_NUMBER: _ClassVar[int]
    START_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    model: str
    format: _generation_pb2.PromptFormat
    sampling: _generation_pb2.Sampling
    steer: float
    start_tokens: int
    batch_rows: int
    def __init__(self, model: _Optional[str] = ..., format: _Optional[_Union[_generation_pb2.PromptFormat, _Mapping]] = ..., sampling: _Optional[_Union[_generation_pb2.Sampling, _Mapping]] = ..., steer: _Optional[float] = ..., start_tokens: _Optional[int] = ..., batch_rows: _Optional[int] = ...) -> None: ...

class RewriteStyle(_message.Message):
    __slots__ = ("name", "instruction", "frame")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    instruction: str
    frame: str
    def __init__(self, name: _Optional[str] = ..., instruction: _Optional[str] = ..., frame: _Optional[str] = ...) -> None: ...

class Synthesize(_message.Message):
    __slots__ = ("sae", "targets", "seed_data", "reference", "natural", "layers", "rendering", "masks", "context", "bad_rows", "model_batch_tokens", "threshold", "writer", "endpoint", "local", "templates", "purpose", "per_feature", "attempts", "limit", "max_overlap", "shown", "before", "after", "styles", "same_meaning", "risk", "responses", "refusal", "help", "random_baseline", "draws")
    SAE_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    SEED_DATA_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    NATURAL_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    RENDERING_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    BAD_ROWS_FIELD_NUMBER: _ClassVar[int]
    MODEL_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PER_FEATURE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_OVERLAP_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    STYLES_FIELD_NUMBER: _ClassVar[int]
    SAME_MEANING_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    HELP_FIELD_NUMBER: _ClassVar[int]
    RANDOM_BASELINE_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    sae: str
    targets: SynthesisTargets
    seed_data: TextRows
    reference: TextRows
    natural: TextRows
    layers: _containers.RepeatedScalarFieldContainer[int]
    rendering: _features_pb2.Rendering
    masks: _features_pb2.TokenMasks
    context: int
    bad_rows: _redundancy_pb2.BadRows
    model_batch_tokens: int
    threshold: float
    writer: SynthesisWriter
    endpoint: _chat_pb2.ChatEndpoint
    local: LocalWriter
    templates: _containers.RepeatedScalarFieldContainer[str]
    purpose: str
    per_feature: int
    attempts: int
    limit: int
    max_overlap: float
    shown: int
    before: int
    after: int
    styles: _containers.RepeatedCompositeFieldContainer[RewriteStyle]
    same_meaning: bool
    risk: PromptRisk
    responses: Responder
    refusal: str
    help: str
    random_baseline: bool
    draws: int
    def __init__(self, sae: _Optional[str] = ..., targets: _Optional[_Union[SynthesisTargets, _Mapping]] = ..., seed_data: _Optional[_Union[TextRows, _Mapping]] = ..., reference: _Optional[_Union[TextRows, _Mapping]] = ..., natural: _Optional[_Union[TextRows, _Mapping]] = ..., layers: _Optional[_Iterable[int]] = ..., rendering: _Optional[_Union[_features_pb2.Rendering, _Mapping]] = ..., masks: _Optional[_Union[_features_pb2.TokenMasks, _Mapping]] = ..., context: _Optional[int] = ..., bad_rows: _Optional[_Union[_redundancy_pb2.BadRows, str]] = ..., model_batch_tokens: _Optional[int] = ..., threshold: _Optional[float] = ..., writer: _Optional[_Union[SynthesisWriter, str]] = ..., endpoint: _Optional[_Union[_chat_pb2.ChatEndpoint, _Mapping]] = ..., local: _Optional[_Union[LocalWriter, _Mapping]] = ..., templates: _Optional[_Iterable[str]] = ..., purpose: _Optional[str] = ..., per_feature: _Optional[int] = ..., attempts: _Optional[int] = ..., limit: _Optional[int] = ..., max_overlap: _Optional[float] = ..., shown: _Optional[int] = ..., before: _Optional[int] = ..., after: _Optional[int] = ..., styles: _Optional[_Iterable[_Union[RewriteStyle, _Mapping]]] = ..., same_meaning: _Optional[bool] = ..., risk: _Optional[_Union[PromptRisk, str]] = ..., responses: _Optional[_Union[Responder, str]] = ..., refusal: _Optional[str] = ..., help: _Optional[str] = ..., random_baseline: _Optional[bool] = ..., draws: _Optional[int] = ...) -> None: ...
