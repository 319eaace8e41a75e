"""A connection to admission.sock, as the middleware has it. `test_rpc_stream.py` and `test_withdrawals.py` open it."""

import asyncio
from typing import Any

from alise_contract.names import ADMISSION_SOCKET, CONTRACT_VERSION
from alise_contract.v1 import admission_pb2 as pb
from tests.scheduler.pod import PATIENCE_SECONDS, Pod


class Stream:
    """Sends requests and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, job_id: str, **fields: Any) -> None:
        values: dict[str, Any] = {"contract_version": CONTRACT_VERSION, "job_id": job_id, "prompt": "hi"}
        data = pb.AdmitRequest(**(values | fields)).SerializeToString()
        self.writer.write(len(data).to_bytes(4, "little") + data)
        await self.writer.drain()

    async def answer(self) -> pb.AdmitAnswer:
        async with asyncio.timeout(PATIENCE_SECONDS):
            size = int.from_bytes(await self.reader.readexactly(4), "little")
            return pb.AdmitAnswer.FromString(await self.reader.readexactly(size))

    async def ended(self) -> bool:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read() == b""


async def connected(pod: Pod) -> Stream:
    return Stream(*await asyncio.open_unix_connection(pod.folder / ADMISSION_SOCKET))
