"""The server half of the contract's adapter: any service descriptor and an object with one coroutine per method."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

_KINDS: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def service_handler(descriptor: ServiceDescriptor, servicer: Any) -> grpc.GenericRpcHandler:
    """Serves `descriptor` with `servicer`'s methods of the same name in snake_case: ``StartRun`` calls ``start_run``.

    A method takes (request, context); one that streams its answers is an async generator.
    """
    methods = {
        method.name: _KINDS[method.client_streaming, method.server_streaming](
            getattr(servicer, re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        for method in descriptor.methods
    }
    return grpc.method_handlers_generic_handler(descriptor.full_name, methods)
