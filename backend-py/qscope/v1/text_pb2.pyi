from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import options_pb2 as _options_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class TextSource(_message.Message):
    __slots__ = ("source", "field", "config", "split", "revision", "context", "pack", "repeat", "shuffle_documents", "where")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    REPEAT_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    source: str
    field: str
    config: str
    split: str
    revision: str
    context: int
    pack: bool
    repeat: bool
    shuffle_documents: int
    where: str
    def __init__(self, source: _Optional[str] = ..., field: _Optional[str] = ..., config: _Optional[str] = ..., split: _Optional[str] = ..., revision: _Optional[str] = ..., context: _Optional[int] = ..., pack: _Optional[bool] = ..., repeat: _Optional[bool] = ..., shuffle_documents: _Optional[int] = ..., where: _Optional[str] = ...) -> None: ...
