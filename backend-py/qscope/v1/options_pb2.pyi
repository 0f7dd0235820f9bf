from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor
INFO_FIELD_NUMBER: _ClassVar[int]
info: _descriptor.FieldDescriptor

class FieldInfo(_message.Message):
    __slots__ = ("doc", "default", "path", "optional")
    DOC_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    doc: str
    default: str
    path: bool
    optional: bool
    def __init__(self, doc: _Optional[str] = ..., default: _Optional[str] = ..., path: _Optional[bool] = ..., optional: _Optional[bool] = ...) -> None: ...
