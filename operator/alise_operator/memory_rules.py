"""The memory that an engine's and a scheduler's container need: what the operator asks for, and memory limits that are too small.

Pure: rules.py refuses limits in the resource by it, children/pod_needs.py those of `podTemplate`; children/pod.py and devices.py write
requests, limits and volumes from it.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from alise_contract.quantities import format_bytes, quantity_bytes
from alise_operator.errors import Problem
from alise_operator.flag_values import shown
from alise_operator.flags import given_flags
from alise_operator.spec import Spec
from alise_operator.spec_engine import Engine

MIB: Final = 1 << 20
GIB: Final = 1 << 30

KV_SPACE_ENV: Final = "VLLM_CPU_KVCACHE_SPACE"
DEFAULT_CPU_KV_SPACE_GIB: Final = 1
# No machine has more, and Python refuses to convert texts of thousands of digits.
WHOLE_GIB: Final = re.compile(r"[0-9]{1,6}")
# The in-memory volume of the sockets. They take no space, but a file written there by mistake must not fill the node's memory.
SOCKET_VOLUME_BYTES: Final = 16 * MIB
# Python, PyTorch and vLLM's processes, measured with the quickstart's model on a CPU: 2.2 GB together with a 1 GiB KV cache.
ENGINE_BASE_BYTES: Final = 1 * GIB
# The scheduler's process and its supervisor as they start, measured with the encoder: 153 and 16 MiB. Training comes on top.
SCHEDULER_LEAST_BYTES: Final = 192 * MIB
# Memory for the weights and for loading them, per device, if no memory limit is given.
_LOADING_BYTES: Final = 64 * GIB
# The host store per GPU if the engine chooses its size: the KV cache of a 32B model on one H100 (7.3 GiB) or of an 8B model on a GPU of
# 24 GB fits, and the pod still fits on small GPU nodes of 16 GiB.
_HOST_STORE_BYTES: Final = 8 * GIB
# The part of it that a memory limit must cover: a smaller container gets a smaller store.
_LEAST_HOST_STORE_BYTES: Final = GIB


def shared_memory_bytes(engine: Engine) -> int:
    """Returns the size of the in-memory /dev/shm, through which NCCL and vLLM's workers pass tensors."""
    return 256 * MIB if engine.device == "cpu" else engine.tensor_parallel_size * GIB


def needed_memory_bytes(spec: Spec) -> int:
    """Returns the least memory in which the engine's container works, without the weights."""
    return sum(count for _, count in memory_parts(spec))


def requested_memory_bytes(spec: Spec) -> int:
    """Returns the memory request if the user sets none: what the container needs, with the whole host store."""
    return needed_memory_bytes(spec) + most_host_memory_bytes(spec) - _least_host_memory_bytes(spec)


def most_host_memory_bytes(spec: Spec) -> int:
    """Returns the size of the host store. If the engine chooses it, this is the largest size, which the pod's memory request includes.

    The engine chooses the size of the KV cache on the device, which is known here for a CPU.
    """
    if spec.kv_offload.host_memory is not None:
        return quantity_bytes(spec.kv_offload.host_memory)
    return cpu_kv_space_gib(spec.engine) * GIB if spec.engine.device == "cpu" else spec.engine.tensor_parallel_size * _HOST_STORE_BYTES


def _least_host_memory_bytes(spec: Spec) -> int:
    most = most_host_memory_bytes(spec)
    return most if spec.kv_offload.host_memory is not None else min(most, _LEAST_HOST_STORE_BYTES)


def memory_parts(spec: Spec) -> list[tuple[str, int]]:
    """Returns the known parts of the memory of the engine's container, with names that the user knows."""
    parts = [("the engine itself", ENGINE_BASE_BYTES), ("spec.kvOffload.hostMemory", _least_host_memory_bytes(spec))]
    if spec.engine.device == "cpu":
        parts.append((f"the KV cache ({KV_SPACE_ENV})", cpu_kv_space_gib(spec.engine) * GIB))
    if offloaded := _offloaded_bytes(spec.engine):
        parts.append(("weights in host memory (--cpu-offload-gb)", offloaded))
    return [*parts, ("/dev/shm", shared_memory_bytes(spec.engine)), ("the socket volume", SOCKET_VOLUME_BYTES)]


def _offloaded_bytes(engine: Engine) -> int:
    """Returns the host memory of all devices that vLLM's flag sets. An invalid number is refused elsewhere."""
    values = [value for _, name, value in given_flags(engine.args) if name == "cpu-offload-gb"]
    if not values or re.fullmatch(r"\d{1,6}(\.\d+)?", values[-1] or "") is None:
        return 0
    return int(Decimal(str(values[-1])) * GIB) * engine.tensor_parallel_size


def default_memory_limit_bytes(spec: Spec) -> int:
    """Returns the memory limit of the engine's container if the user sets none.

    It is far above the use of a healthy engine, so that a faulty one is stopped before it exhausts the node. The size of the weights is not
    known here.
    """
    return requested_memory_bytes(spec) + _LOADING_BYTES * spec.engine.tensor_parallel_size


def cpu_kv_space_gib(engine: Engine) -> int:
    """Returns the GiB of the KV cache on a CPU: from the engine's environment, or the default if that is missing or invalid."""
    value = next((variable.value for variable in engine.env if variable.name == KV_SPACE_ENV), None)
    return int(value) if value and WHOLE_GIB.fullmatch(value) else DEFAULT_CPU_KV_SPACE_GIB


def memory_problems(field: str, limit: object, spec: Spec) -> Iterator[Problem]:
    """Yields a problem if the engine's container cannot work with the memory limit. The API server refuses invalid quantities."""
    needed = needed_memory_bytes(spec)
    try:
        given = quantity_bytes(str(limit))
    except ValueError:
        return
    if given < needed:
        parts = " + ".join(f"{format_bytes(count)} ({what})" for what, count in memory_parts(spec) if count)
        yield Problem(
            field,
            f"{shown(str(limit))} is below {format_bytes(needed)} = {parts}; raise the limit or lower spec.kvOffload.hostMemory; the "
            "model's weights need memory in addition to this",
        )


def scheduler_memory_problems(field: str, limit: object) -> Iterator[Problem]:
    """Yields a problem if the scheduler cannot start with the memory limit; the pod would serve in order of arrival."""
    try:
        given = quantity_bytes(str(limit))
    except ValueError:
        return
    if given < SCHEDULER_LEAST_BYTES:
        least = format_bytes(SCHEDULER_LEAST_BYTES)
        yield Problem(field, f"{shown(str(limit))} is below {least}, which the scheduler needs to start; raise the limit (1Gi by default)")
