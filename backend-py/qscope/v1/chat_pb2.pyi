from qscope.v1.rules import validate_pb2 as _validate_pb2
from qscope.v1 import options_pb2 as _options_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ChatEndpoint(_message.Message):
    __slots__ = ("url", "model", "api_key_variable", "max_tokens", "temperature", "concurrency", "timeout_seconds", "input_price", "output_price")
    URL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    API_KEY_VARIABLE_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INPUT_PRICE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_PRICE_FIELD_NUMBER: _ClassVar[int]
    url: str
    model: str
    api_key_variable: str
    max_tokens: int
    temperature: float
    concurrency: int
    timeout_seconds: float
    input_price: float
    output_price: float
    def __init__(self, url: _Optional[str] = ..., model: _Optional[str] = ..., api_key_variable: _Optional[str] = ..., max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., concurrency: _Optional[int] = ..., timeout_seconds: _Optional[float] = ..., input_price: _Optional[float] = ..., output_price: _Optional[float] = ...) -> None: ...
