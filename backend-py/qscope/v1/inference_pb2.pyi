from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import experiment_pb2 as _experiment_pb2
from qscope.v1 import generation_pb2 as _generation_pb2
from qscope.v1 import model_pb2 as _model_pb2
from qscope.v1 import steering_pb2 as _steering_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_REASON_UNSPECIFIED: _ClassVar[EndReason]
    END_REASON_END_TOKEN: _ClassVar[EndReason]
    END_REASON_STOP_TEXT: _ClassVar[EndReason]
    END_REASON_LENGTH: _ClassVar[EndReason]
    END_REASON_ABORTED: _ClassVar[EndReason]
END_REASON_UNSPECIFIED: EndReason
END_REASON_END_TOKEN: EndReason
END_REASON_STOP_TEXT: EndReason
END_REASON_LENGTH: EndReason
END_REASON_ABORTED: EndReason

class GenerateRequest(_message.Message):
    __slots__ = ("model", "model_options", "compute", "sae", "runs_folder", "format", "sampling", "rows")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    SAE_FIELD_NUMBER: _ClassVar[int]
    RUNS_FOLDER_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    model: str
    model_options: _model_pb2.ModelOptions
    compute: _experiment_pb2.Compute
    sae: str
    runs_folder: str
    format: _generation_pb2.PromptFormat
    sampling: _generation_pb2.Sampling
    rows: _containers.RepeatedCompositeFieldContainer[GenerateRow]
    def __init__(self, model: _Optional[str] = ..., model_options: _Optional[_Union[_model_pb2.ModelOptions, _Mapping]] = ..., compute: _Optional[_Union[_experiment_pb2.Compute, _Mapping]] = ..., sae: _Optional[str] = ..., runs_folder: _Optional[str] = ..., format: _Optional[_Union[_generation_pb2.PromptFormat, _Mapping]] = ..., sampling: _Optional[_Union[_generation_pb2.Sampling, _Mapping]] = ..., rows: _Optional[_Iterable[_Union[GenerateRow, _Mapping]]] = ...) -> None: ...

class GenerateRow(_message.Message):
    __slots__ = ("prompt", "steering", "noise")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    STEERING_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    steering: _steering_pb2.SteeringSpec
    noise: int
    def __init__(self, prompt: _Optional[str] = ..., steering: _Optional[_Union[_steering_pb2.SteeringSpec, _Mapping]] = ..., noise: _Optional[int] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("started", "step", "row_ended", "finished", "notice")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ROW_ENDED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    started: GenerationStarted
    step: GenerationStep
    row_ended: RowEnded
    finished: GenerationFinished
    notice: GenerationNotice
    def __init__(self, started: _Optional[_Union[GenerationStarted, _Mapping]] = ..., step: _Optional[_Union[GenerationStep, _Mapping]] = ..., row_ended: _Optional[_Union[RowEnded, _Mapping]] = ..., finished: _Optional[_Union[GenerationFinished, _Mapping]] = ..., notice: _Optional[_Union[GenerationNotice, _Mapping]] = ...) -> None: ...

class GenerationNotice(_message.Message):
    __slots__ = ("text", "warning")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    text: str
    warning: bool
    def __init__(self, text: _Optional[str] = ..., warning: _Optional[bool] = ...) -> None: ...

class GenerationStarted(_message.Message):
    __slots__ = ("facts", "prompt_tokens")
    FACTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    facts: _containers.RepeatedScalarFieldContainer[str]
    prompt_tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, facts: _Optional[_Iterable[str]] = ..., prompt_tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class GenerationStep(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[RowDelta]
    def __init__(self, rows: _Optional[_Iterable[_Union[RowDelta, _Mapping]]] = ...) -> None: ...

class RowDelta(_message.Message):
    __slots__ = ("row", "token_id", "text", "logprob")
    ROW_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    row: int
    token_id: int
    text: str
    logprob: float
    def __init__(self, row: _Optional[int] = ..., token_id: _Optional[int] = ..., text: _Optional[str] = ..., logprob: _Optional[float] = ...) -> None: ...

class RowEnded(_message.Message):
    __slots__ = ("row", "reason", "tokens", "proof")
    ROW_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    row: int
    reason: EndReason
    tokens: int
    proof: _steering_pb2.SteeringProof
    def __init__(self, row: _Optional[int] = ..., reason: _Optional[_Union[EndReason, str]] = ..., tokens: _Optional[int] = ..., proof: _Optional[_Union[_steering_pb2.SteeringProof, _Mapping]] = ...) -> None: ...

class GenerationFinished(_message.Message):
    __slots__ = ("tokens", "first_token_seconds", "seconds")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    first_token_seconds: float
    seconds: float
    def __init__(self, tokens: _Optional[int] = ..., first_token_seconds: _Optional[float] = ..., seconds: _Optional[float] = ...) -> None: ...
