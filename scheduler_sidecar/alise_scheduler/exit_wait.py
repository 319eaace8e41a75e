"""The preStop hook of the scheduler's container: wait until the engine is gone, so that a draining pod keeps its order to the end.

`__main__.py` runs it for `alise-scheduler wait-for-engine-exit`. It talks to the engine's control socket only.
"""

import time
from typing import Final

import grpc

from alise_contract.v1 import engine_control_pb2 as pb
from alise_contract.v1.engine_control_pb2_grpc import EngineControlStub

_CALL_SECONDS: Final = 1.0
# After one missed answer the engine may be busy; after this many in a row it is gone.
_MISSES: Final = 3


def answers(socket_path: str) -> bool:
    """Return whether the engine answers on its control socket within a second."""
    with grpc.insecure_channel(f"unix:{socket_path}") as channel:
        try:
            EngineControlStub(channel).Status(pb.StatusRequest(), timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            # A refusal is an answer, too.
            return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return True


def wait_for_engine_exit(socket_path: str, timeout_seconds: float, poll_seconds: float = 0.5) -> bool:
    """Return True once the engine no longer answers on the socket, or False after `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    misses = 0
    while misses < _MISSES:
        misses = 0 if answers(socket_path) else misses + 1
        if time.monotonic() >= deadline:
            return misses >= _MISSES
        if misses < _MISSES:
            time.sleep(min(poll_seconds, max(0.0, deadline - time.monotonic())))
    return True
