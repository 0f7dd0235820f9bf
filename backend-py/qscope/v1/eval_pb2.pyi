from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import generation_pb2 as _generation_pb2
from qscope.v1 import options_pb2 as _options_pb2
from qscope.v1 import posttraining_pb2 as _posttraining_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResponseMeasure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESPONSE_MEASURE_UNSPECIFIED: _ClassVar[ResponseMeasure]
    RESPONSE_MEASURE_REPEAT: _ClassVar[ResponseMeasure]
    RESPONSE_MEASURE_CODESWITCH: _ClassVar[ResponseMeasure]
    RESPONSE_MEASURE_ACCURACY: _ClassVar[ResponseMeasure]
RESPONSE_MEASURE_UNSPECIFIED: ResponseMeasure
RESPONSE_MEASURE_REPEAT: ResponseMeasure
RESPONSE_MEASURE_CODESWITCH: ResponseMeasure
RESPONSE_MEASURE_ACCURACY: ResponseMeasure

class SavedResponses(_message.Message):
    __slots__ = ("source", "response", "ids", "truncated", "prompt", "answer", "language", "where", "limit")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    source: str
    response: str
    ids: str
    truncated: str
    prompt: str
    answer: str
    language: str
    where: str
    limit: int
    def __init__(self, source: _Optional[str] = ..., response: _Optional[str] = ..., ids: _Optional[str] = ..., truncated: _Optional[str] = ..., prompt: _Optional[str] = ..., answer: _Optional[str] = ..., language: _Optional[str] = ..., where: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class SwitchDetection(_message.Message):
    __slots__ = ("targets", "paper", "ignore_prompt", "words")
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    PAPER_FIELD_NUMBER: _ClassVar[int]
    IGNORE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedScalarFieldContainer[str]
    paper: bool
    ignore_prompt: bool
    words: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, targets: _Optional[_Iterable[str]] = ..., paper: _Optional[bool] = ..., ignore_prompt: _Optional[bool] = ..., words: _Optional[_Iterable[str]] = ...) -> None: ...

class SwitchOnset(_message.Message):
    __slots__ = ("sae", "features", "layers", "top_k", "before", "after")
    SAE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    sae: str
    features: str
    layers: _containers.RepeatedScalarFieldContainer[int]
    top_k: int
    before: int
    after: int
    def __init__(self, sae: _Optional[str] = ..., features: _Optional[str] = ..., layers: _Optional[_Iterable[int]] = ..., top_k: _Optional[int] = ..., before: _Optional[int] = ..., after: _Optional[int] = ...) -> None: ...

class EvalResponses(_message.Message):
    __slots__ = ("measures", "prompts", "responses", "format", "sampling", "samples", "batch_rows", "codeswitch", "rule", "pattern", "onset")
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    CODESWITCH_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    ONSET_FIELD_NUMBER: _ClassVar[int]
    measures: _containers.RepeatedScalarFieldContainer[ResponseMeasure]
    prompts: _posttraining_pb2.TrainRows
    responses: SavedResponses
    format: _generation_pb2.PromptFormat
    sampling: _generation_pb2.Sampling
    samples: int
    batch_rows: int
    codeswitch: SwitchDetection
    rule: str
    pattern: str
    onset: SwitchOnset
    def __init__(self, measures: _Optional[_Iterable[_Union[ResponseMeasure, str]]] = ..., prompts: _Optional[_Union[_posttraining_pb2.TrainRows, _Mapping]] = ..., responses: _Optional[_Union[SavedResponses, _Mapping]] = ..., format: _Optional[_Union[_generation_pb2.PromptFormat, _Mapping]] = ..., sampling: _Optional[_Union[_generation_pb2.Sampling, _Mapping]] = ..., samples: _Optional[int] = ..., batch_rows: _Optional[int] = ..., codeswitch: _Optional[_Union[SwitchDetection, _Mapping]] = ..., rule: _Optional[str] = ..., pattern: _Optional[str] = ..., onset: _Optional[_Union[SwitchOnset, _Mapping]] = ...) -> None: ...
