"""Runs every call of our services: parses the request, turns exceptions into a Status, logs the outcome.

Knows gRPC handlers. Must not know any request: nothing of one is logged. This is the root of each call,
so it alone catches every exception.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message

from dataplane.api.status import status_of_defect, status_of_malformed_message, status_of_refusal
from dataplane.api.violations import InvalidRequest
from dataplane.engine.types import EngineError, ErrorKind

OUR_METHODS: Final = "/ovpn.dataplane.v1."
SECRET_METHODS: Final = frozenset({"/ovpn.dataplane.v1.KeyService/InstallKey"})
"""Methods whose request holds key bytes, which the text of an exception there might quote."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of our own package; health and reflection keep their own ways."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by gRPC once a call. The request is parsed here, because gRPC answers UNKNOWN to a malformed one."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OUR_METHODS):
            return handler
        if handler.response_streaming:

            async def stream(raw: bytes, context: Context) -> None:
                await self._stream(method, handler, raw, context)

            return grpc.unary_stream_rpc_method_handler(stream, None, handler.response_serializer)

        async def answer(raw: bytes, context: Context) -> Message:
            return await self._answer(method, handler, raw, context)

        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)

    async def _answer(self, method: str, handler: Any, raw: bytes, context: Context) -> Message:
        started = time.monotonic()
        code = "CANCELLED"
        try:
            try:
                reply: Message = await handler.unary_unary(handler.request_deserializer(raw), context)
            except Exception as error:  # noqa: BLE001 - the root of a call
                status = self._status_of(method, error)
                code = status.code.name
                await context.abort_with_status(status)
            code = "OK"
            return reply
        finally:
            self._log_outcome(method, code, started)

    async def _stream(self, method: str, handler: Any, raw: bytes, context: Context) -> None:
        started = time.monotonic()
        code = "CANCELLED"
        # Closed here, not by the garbage collector: what a stream holds must not outlive its call.
        async with aclosing(_replies(handler, raw, context)) as replies:
            try:
                while True:
                    try:
                        reply = await anext(replies)
                    except StopAsyncIteration:
                        code = "OK"
                        return
                    except Exception as error:  # noqa: BLE001 - the root of a call
                        status = self._status_of(method, error)
                        code = status.code.name
                        await context.abort_with_status(status)
                    # Outside of the inner try: that the client went away is no failure of the call.
                    await context.write(reply)
            finally:
                self._log_outcome(method, code, started)

    def _status_of(self, method: str, error: Exception) -> grpc.Status:
        match error:
            case DecodeError():
                return status_of_malformed_message()
            case InvalidRequest():
                return status_of_refusal(error)
            case EngineError() if error.kind is not ErrorKind.INTERNAL:
                return status_of_refusal(error)
        self._log_defect(method, error)
        return status_of_defect()

    def _log_defect(self, method: str, error: Exception) -> None:
        kind = type(error).__name__
        if method in SECRET_METHODS:
            self._log.error("rpc_defect", method=method, error=kind, stack=traceback.format_tb(error.__traceback__))
        else:
            self._log.error("rpc_defect", method=method, error=kind, exc_info=error)

    def _log_outcome(self, method: str, code: str, started: float) -> None:
        self._log.debug("rpc", method=method, code=code, duration_ms=round((time.monotonic() - started) * 1000, 3))


async def _replies(handler: Any, raw: bytes, context: Context) -> AsyncGenerator[Message, None]:
    async with aclosing(handler.unary_stream(handler.request_deserializer(raw), context)) as replies:
        async for reply in replies:
            yield reply
