"""The border every call crosses: requests are checked on the way in, errors become statuses on the way out."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from qscope.errors import UserError
from qscope.runs import violations
from qscope.v1.run_event_pb2 import Failure

log = logging.getLogger(__name__)

#: Code of a `UserError` by its reason; every other one is INVALID_ARGUMENT.
_CODES = {
    "RUN_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "NO_RUN_FOLDER": grpc.StatusCode.NOT_FOUND,
    "REQUEST_ID_REUSED": grpc.StatusCode.ALREADY_EXISTS,
    "RUN_ACTIVE": grpc.StatusCode.FAILED_PRECONDITION,
    "RUN_SUCCEEDED": grpc.StatusCode.FAILED_PRECONDITION,
    "RUN_ELSEWHERE": grpc.StatusCode.FAILED_PRECONDITION,
    "EXPERIMENT_UNREADABLE": grpc.StatusCode.FAILED_PRECONDITION,
    "NOTHING_STEERED": grpc.StatusCode.FAILED_PRECONDITION,
    "JOURNAL_DAMAGED": grpc.StatusCode.DATA_LOSS,
    "HISTORY_LOST": grpc.StatusCode.OUT_OF_RANGE,
    "WORKER_STOPPING": grpc.StatusCode.UNAVAILABLE,
    "DISK_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "OUT_OF_MEMORY": grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Boundary(grpc.aio.ServerInterceptor):
    """Validates requests by the rules on their messages and translates exceptions, once, for every qscope method."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/qscope."):
            return handler
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(_single(handler.unary_unary), **codecs)
        assert handler.unary_stream, "the contract has no streamed requests"
        return grpc.unary_stream_rpc_method_handler(_streamed(handler.unary_stream), **codecs)


def _single(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(request: Message, context: grpc.aio.ServicerContext) -> Any:
        try:
            await _check(request, context)
            return await method(request, context)
        except Exception as error:
            await _abort(error, context)

    return call


def _streamed(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Message, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        try:
            await _check(request, context)
            async for response in method(request, context):
                yield response
        except Exception as error:
            await _abort(error, context)

    return call


async def _check(request: Message, context: grpc.aio.ServicerContext) -> None:
    broken = violations(request)
    if not broken:
        return
    bad_request = BadRequest()
    for field, description in broken:
        # Details travel in a header, which peers limit to 8 KiB; the caller's own check shows the rest.
        if bad_request.ByteSize() > 3000:
            break
        bad_request.field_violations.add(field=field, description=description[:500])
    text = "; ".join(f"{field}: {description}" if field else description for field, description in broken)
    info = ErrorInfo(reason="INVALID_REQUEST", domain="qscope")
    await context.abort_with_status(_status(grpc.StatusCode.INVALID_ARGUMENT, text, bad_request, info))


async def _abort(error: Exception, context: grpc.aio.ServicerContext) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, UserError):
        details: list[Message] = [
            ErrorInfo(reason=error.reason, domain="qscope", metadata={"remedy": error.remedy, "field": error.field})
        ]
        if error.field:
            violation = BadRequest.FieldViolation(field=error.field, description=error.message)
            details.insert(0, BadRequest(field_violations=[violation]))
        code = _CODES.get(error.reason, grpc.StatusCode.INVALID_ARGUMENT)
        await context.abort_with_status(_status(code, error.message, *details))
    log.error("a call failed", exc_info=error)
    message = f"{type(error).__name__}: {error}"
    stack = "".join(traceback.format_exception(error))
    failure = Failure(message=message[:500], reason="INTERNAL", traceback=stack[-2000:])
    info = ErrorInfo(reason="INTERNAL", domain="qscope")
    await context.abort_with_status(_status(grpc.StatusCode.INTERNAL, message, info, failure))


def _status(code: grpc.StatusCode, message: str, *details: Message) -> grpc.Status:
    status = Status(code=code.value[0], message=message[:1000])
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)
