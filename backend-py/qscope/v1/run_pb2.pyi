import datetime

from qscope.v1.rules import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from qscope.v1 import experiment_pb2 as _experiment_pb2
from qscope.v1 import run_event_pb2 as _run_event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CancelMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_MODE_UNSPECIFIED: _ClassVar[CancelMode]
    CANCEL_MODE_GRACEFUL: _ClassVar[CancelMode]
    CANCEL_MODE_IMMEDIATE: _ClassVar[CancelMode]
CANCEL_MODE_UNSPECIFIED: CancelMode
CANCEL_MODE_GRACEFUL: CancelMode
CANCEL_MODE_IMMEDIATE: CancelMode

class Run(_message.Message):
    __slots__ = ("run_id", "state", "verb", "folder", "created", "updated", "pid", "last_sequence", "progress", "failure", "log_tail", "resumable")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    state: _run_event_pb2.RunState
    verb: str
    folder: str
    created: _timestamp_pb2.Timestamp
    updated: _timestamp_pb2.Timestamp
    pid: int
    last_sequence: int
    progress: _run_event_pb2.Progress
    failure: _run_event_pb2.Failure
    log_tail: _containers.RepeatedScalarFieldContainer[str]
    resumable: bool
    def __init__(self, run_id: _Optional[str] = ..., state: _Optional[_Union[_run_event_pb2.RunState, str]] = ..., verb: _Optional[str] = ..., folder: _Optional[str] = ..., created: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pid: _Optional[int] = ..., last_sequence: _Optional[int] = ..., progress: _Optional[_Union[_run_event_pb2.Progress, _Mapping]] = ..., failure: _Optional[_Union[_run_event_pb2.Failure, _Mapping]] = ..., log_tail: _Optional[_Iterable[str]] = ..., resumable: _Optional[bool] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("facts", "memory", "memory_bytes", "available_bytes", "fits", "seconds", "time_basis", "disk_bytes", "disk_available_bytes", "warnings", "samples")
    FACTS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIME_BASIS_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    facts: _containers.RepeatedCompositeFieldContainer[PlanFact]
    memory: _containers.RepeatedCompositeFieldContainer[MemoryItem]
    memory_bytes: int
    available_bytes: int
    fits: bool
    seconds: float
    time_basis: str
    disk_bytes: int
    disk_available_bytes: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    samples: _containers.RepeatedCompositeFieldContainer[PlanSample]
    def __init__(self, facts: _Optional[_Iterable[_Union[PlanFact, _Mapping]]] = ..., memory: _Optional[_Iterable[_Union[MemoryItem, _Mapping]]] = ..., memory_bytes: _Optional[int] = ..., available_bytes: _Optional[int] = ..., fits: _Optional[bool] = ..., seconds: _Optional[float] = ..., time_basis: _Optional[str] = ..., disk_bytes: _Optional[int] = ..., disk_available_bytes: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ..., samples: _Optional[_Iterable[_Union[PlanSample, _Mapping]]] = ...) -> None: ...

class PlanSample(_message.Message):
    __slots__ = ("segments", "tokens", "answer_tokens", "language", "row", "right_answer")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    RIGHT_ANSWER_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedCompositeFieldContainer[PlanSegment]
    tokens: int
    answer_tokens: int
    language: str
    row: int
    right_answer: str
    def __init__(self, segments: _Optional[_Iterable[_Union[PlanSegment, _Mapping]]] = ..., tokens: _Optional[int] = ..., answer_tokens: _Optional[int] = ..., language: _Optional[str] = ..., row: _Optional[int] = ..., right_answer: _Optional[str] = ...) -> None: ...

class PlanSegment(_message.Message):
    __slots__ = ("text", "answer")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    text: str
    answer: bool
    def __init__(self, text: _Optional[str] = ..., answer: _Optional[bool] = ...) -> None: ...

class PlanFact(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class MemoryItem(_message.Message):
    __slots__ = ("name", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class StartRunRequest(_message.Message):
    __slots__ = ("request_id", "experiment", "runs_folder", "detach", "source_yaml")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    RUNS_FOLDER_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    SOURCE_YAML_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    experiment: _experiment_pb2.Experiment
    runs_folder: str
    detach: bool
    source_yaml: str
    def __init__(self, request_id: _Optional[str] = ..., experiment: _Optional[_Union[_experiment_pb2.Experiment, _Mapping]] = ..., runs_folder: _Optional[str] = ..., detach: _Optional[bool] = ..., source_yaml: _Optional[str] = ...) -> None: ...

class StartRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id", "runs_folder")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RUNS_FOLDER_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    runs_folder: str
    def __init__(self, run_id: _Optional[str] = ..., runs_folder: _Optional[str] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("runs_folder", "page_size", "page_token")
    RUNS_FOLDER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs_folder: str
    page_size: int
    page_token: str
    def __init__(self, runs_folder: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelRunRequest(_message.Message):
    __slots__ = ("run_id", "runs_folder", "mode", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RUNS_FOLDER_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    runs_folder: str
    mode: CancelMode
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., runs_folder: _Optional[str] = ..., mode: _Optional[_Union[CancelMode, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ResumeRunRequest(_message.Message):
    __slots__ = ("run_id", "runs_folder", "detach")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RUNS_FOLDER_FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    runs_folder: str
    detach: bool
    def __init__(self, run_id: _Optional[str] = ..., runs_folder: _Optional[str] = ..., detach: _Optional[bool] = ...) -> None: ...

class ResumeRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run_id", "runs_folder", "after_sequence")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RUNS_FOLDER_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    runs_folder: str
    after_sequence: int
    def __init__(self, run_id: _Optional[str] = ..., runs_folder: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchRunResponse(_message.Message):
    __slots__ = ("events", "last_sequence")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_run_event_pb2.RunEvent]
    last_sequence: int
    def __init__(self, events: _Optional[_Iterable[_Union[_run_event_pb2.RunEvent, _Mapping]]] = ..., last_sequence: _Optional[int] = ...) -> None: ...

class ValidateExperimentRequest(_message.Message):
    __slots__ = ("experiment", "runs_folder")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    RUNS_FOLDER_FIELD_NUMBER: _ClassVar[int]
    experiment: _experiment_pb2.Experiment
    runs_folder: str
    def __init__(self, experiment: _Optional[_Union[_experiment_pb2.Experiment, _Mapping]] = ..., runs_folder: _Optional[str] = ...) -> None: ...

class ValidateExperimentResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: Plan
    def __init__(self, plan: _Optional[_Union[Plan, _Mapping]] = ...) -> None: ...
