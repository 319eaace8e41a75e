"""Envoy's side: the gRPC service ExternalProcessor, one stream per request.

exchange.py reads the messages and writes the answers, picker.py decides. The service has Envoy's name; its messages are the subset of
`alise_contract/v1/ext_proc.proto`. `__main__.py` starts it.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from alise_contract.v1 import ext_proc_pb2 as pb
from alise_picker.exchange import Exchange, Room, wait_longer
from alise_picker.picker import Picker

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
# Requests in flight at a gateway, their answers included; the gateway balances the rest by itself.
MAX_STREAMS: Final = 10_000
MAX_MESSAGE_BYTES: Final = 4 << 20
# Within the pod's own grace period (`children/picker.py` of the operator).
GRACE_SECONDS: Final = 25.0


class Processor:
    """Answers the streams."""

    def __init__(self, picker: Picker) -> None:
        self._picker = picker
        self.room = Room()

    async def process(
        self, messages: AsyncIterator[pb.ProcessingRequest], context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[pb.ProcessingResponse]:
        exchange = Exchange(self.room)
        try:
            async for message in messages:
                answers, asked = exchange.receive(message)
                # A stream may last as long as an answer. What these names hold would stay in memory until its next message.
                del message
                while answers:
                    yield answers.pop(0)
                if asked is not None:
                    if self._picker.must_hold(asked):
                        yield wait_longer(self._picker.hold_seconds)
                    answers = exchange.answer(await self._picker.decide(asked))
                    asked = None
                while answers:
                    yield answers.pop(0)
        finally:
            exchange.forget()

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The service under Envoy's name."""
        method = grpc.stream_stream_rpc_method_handler(
            self.process,
            request_deserializer=pb.ProcessingRequest.FromString,
            response_serializer=pb.ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": method})


class Server:
    """The processor on a TCP port."""

    def __init__(self, picker: Picker, host: str) -> None:
        options = (("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.http2.bdp_probe", 0), ("grpc.so_reuseport", 0))
        self._host, self._picker = host, picker
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_STREAMS)
        processor = Processor(picker)
        self.room = processor.room
        self._server.add_generic_rpc_handlers((processor.handler(),))

    async def start(self, port: int) -> int:
        """Listens and returns the port; 0 takes a free one. Raises OSError if the port is not available."""
        try:
            bound = self._server.add_insecure_port(f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}")
        except RuntimeError as error:
            raise OSError(f"port {port} is not available on {self._host}: {error}") from error
        await self._server.start()
        return bound

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Stops taking new requests. Held ones are refused with 503 at once; the others are answered within the grace period."""
        self._picker.stop_holding()
        await self._server.stop(grace_seconds)
