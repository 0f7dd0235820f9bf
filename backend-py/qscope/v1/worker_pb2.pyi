from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GetWorkerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetWorkerInfoResponse(_message.Message):
    __slots__ = ("protocol_version", "package_version", "pid", "python_version", "torch_version", "devices", "active_runs", "uptime_seconds")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_RUNS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: str
    package_version: str
    pid: int
    python_version: str
    torch_version: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    active_runs: _containers.RepeatedScalarFieldContainer[str]
    uptime_seconds: float
    def __init__(self, protocol_version: _Optional[str] = ..., package_version: _Optional[str] = ..., pid: _Optional[int] = ..., python_version: _Optional[str] = ..., torch_version: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., active_runs: _Optional[_Iterable[str]] = ..., uptime_seconds: _Optional[float] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("cancel_detached",)
    CANCEL_DETACHED_FIELD_NUMBER: _ClassVar[int]
    cancel_detached: bool
    def __init__(self, cancel_detached: _Optional[bool] = ...) -> None: ...

class ShutdownResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
