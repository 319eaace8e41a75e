"""Corrects vLLM 0.32.0 in the running process, where no setting or extension point allows it.

Each function may be called twice. `names.py` lists the names that are replaced, so that a change of vLLM is noticed. `serve/plugin.py`,
`serve/cli.py` and `enginecore/scheduler.py` call them.
"""

import functools
import signal
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ..wire import last_words
from . import refusals
from .grammar_limits import complaint


def keep_signal_handlers() -> None:
    """Keeps vLLM from replacing our handlers while it starts, in the API server's process.

    Its own raises KeyboardInterrupt, which `zmq_socket_ctx` swallows while EngineCore starts: the process then waits for ever.
    """
    from vllm.entrypoints.launchers.api_server import entry

    def ignored(*_: Any) -> None:
        """The only handler that this module installs is the one for SIGTERM."""

    entry.signal = SimpleNamespace(signal=ignored, SIGTERM=signal.SIGTERM)


def limit_grammars() -> None:
    """Has vLLM refuse grammars that are too large, with 400 as others that it refuses, in the API server's process."""
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import SamplingParams

    validate = SamplingParams._validate_structured_outputs
    if hasattr(validate, "__wrapped__"):
        return

    @functools.wraps(validate)
    def limited(params: Any, *args: Any, **kwargs: Any) -> None:
        if params.structured_outputs is not None and (why := complaint(params.structured_outputs)) is not None:
            raise VLLMValidationError(f"The grammar of the structured output is too large: {why}.", parameter="structured_outputs")
        validate(params, *args, **kwargs)

    SamplingParams._validate_structured_outputs = limited


def check_configuration() -> None:
    """Has the API server refuse, with ConfigError, what alise cannot work with, before EngineCore loads the weights."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.version import __version__ as vllm_version

    create = EngineArgs.create_engine_config
    if hasattr(create, "__wrapped__"):
        return

    @functools.wraps(create)
    def checked(engine_args: Any, *args: Any, **kwargs: Any) -> Any:
        refusals.check_version(vllm_version)
        config = create(engine_args, *args, **kwargs)
        refusals.check_config(config)
        refusals.check_offload(config)
        return config

    EngineArgs.create_engine_config = checked


def keep_last_words() -> None:
    """Has EngineCore write the error that ends it to a file for the server, in EngineCore's process."""
    from vllm.v1.engine.core import EngineCoreProc

    send_engine_dead = EngineCoreProc._send_engine_dead
    if hasattr(send_engine_dead, "__wrapped__"):
        return

    @functools.wraps(send_engine_dead)
    def leaving(core: Any) -> None:
        # vLLM calls this while it handles the exception.
        if (error := sys.exc_info()[1]) is not None:
            last_words.leave(error)
        send_engine_dead(core)

    EngineCoreProc._send_engine_dead = leaving


def correct_workers() -> None:
    """Corrects the CPU's model runner in every process that is about to run a model; costs the others nothing."""
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    init_device = WorkerWrapperBase.init_device
    if hasattr(init_device, "__wrapped__") and init_device.__module__ == __name__:
        return

    @functools.wraps(init_device, assigned=("__name__", "__qualname__", "__doc__"))
    def corrected(worker: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            draw_nothing_for_partial_prefills()
        return init_device(worker, *args, **kwargs)

    WorkerWrapperBase.init_device = corrected


def tell_adapters_apart() -> None:
    """Compares requests for LoRA adapters by name and number, in every process.

    By name alone, as vLLM compares them, the worker keeps one of two versions of an adapter whose requests run in the same step. The
    weights of the other are then missing once they have been evicted, which ends EngineCore.
    """
    from vllm.lora.request import LoRARequest

    def equal(one: Any, other: object) -> bool:
        return isinstance(other, LoRARequest) and (one.lora_name, one.lora_int_id) == (other.lora_name, other.lora_int_id)

    def hashed(one: Any) -> int:
        return hash((one.lora_name, one.lora_int_id))

    LoRARequest.__eq__, LoRARequest.__hash__ = equal, hashed


def draw_nothing_for_partial_prefills() -> None:
    """Lets a request with a seed be prefilled in several steps on a CPU.

    After a step that computes only a part of a prompt, vLLM discards the token it has sampled, and takes back what the request's generator
    drew for it by moving the generator's offset. Generators on a CPU have no offset, and the exception ends EngineCore. Here the generator
    of such a request is out of sight for the step, so nothing is drawn and nothing has to be taken back.
    """
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    for name in ("_sample", "_bookkeeping_sync"):
        # The methods are the GPU runner's; only the CPU's gets its own.
        if name not in vars(CPUModelRunner):
            setattr(CPUModelRunner, name, _hiding_generators(getattr(CPUModelRunner, name)))


def _hiding_generators(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def hiding(runner: Any, *args: Any, **kwargs: Any) -> Any:
        batch = runner.input_batch
        # The sampler's metadata holds this very dictionary.
        generators: dict[int, Any] = batch.generators
        discarded = runner.discard_request_mask.np[: batch.num_reqs].nonzero()[0]
        hidden = {row: generators.pop(row) for row in map(int, discarded) if row in generators}
        try:
            return method(runner, *args, **kwargs)
        finally:
            generators.update(hidden)

    return hiding
