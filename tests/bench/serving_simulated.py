"""The requests of an emulated engine in the simulator: how many a second the device can serve, and how long the same ones take there.

`serving_emulated.py` and `clients.py` call it.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alise_contract.names import HINT_XARG, JOB_XARG
from alise_contract.pod_key import derived, pod_key
from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.lengths import QUANTILES, Floats
from alise_scheduler.core.rank import Policy
from alise_scheduler.core.reports import EngineShape
from alise_scheduler.predictor.hint import decode
from alise_simulator.model import EngineModel
from alise_simulator.run import simulate
from alise_simulator.systems import Setup, core_driver, driver_named
from alise_simulator.trace import Trace, make_trace
from alise_simulator.trace import capacity_per_second as capacity
from tests.bench.harness import Row
from tests.bench.serving_client import NUMBER
from tests.emulated.launch import BLOCK_SIZE, Emulation


def model_of(emulation: Emulation) -> EngineModel:
    """Returns the device as the simulator has it, in its own seconds."""
    device = emulation.device
    shape = EngineShape(
        max_num_seqs=emulation.slots,
        max_num_batched_tokens=emulation.step_tokens,
        max_model_len=emulation.max_model_len,
        block_size=BLOCK_SIZE,
        # vLLM keeps one block for itself.
        num_device_blocks=device.room_tokens // BLOCK_SIZE - 1,
        block_bytes=BLOCK_SIZE * device.kv_token_bytes,
        host_limit_bytes=emulation.host_bytes,
    )
    cost = Coefficients(device.step_seconds, device.prefill_seconds, device.decode_seconds, device.context_seconds)
    # KV that is in 8 bits on the device is parked as it is.
    share = 1.0 if device.kv_bits == 8 else EngineModel().int8_share
    return EngineModel(
        shape,
        cost,
        save_seconds_per_byte=1 / device.to_host_bytes_per_second,
        restore_seconds_per_byte=1 / device.from_host_bytes_per_second,
        int8_share=share,
        async_scheduling=True,
    )


def capacity_per_second(sizes: Sequence[tuple[int, int]], emulation: Emulation) -> float:
    """Returns the requests a second that the device does with all slots or all KV memory busy: (prompt, answer) tokens of each."""
    inputs, outputs = np.array(sizes).T
    return capacity(make_trace("crowd", np.zeros(len(sizes)), inputs, outputs), model_of(emulation))


def end_seconds(rows: Sequence[Row], predicted: Mapping[int, Sequence[float]] | None, emulation: Emulation) -> dict[int, float]:
    """Returns the simulator's end-to-end seconds of each request by its number; without predictions first come, first served.

    A request without a prediction is one that the sidecar did not answer for in time: of it the simulator expects what is typical.
    """
    scale = emulation.device.time_scale
    own = [row for row in rows if not row["error"]]
    own.sort(key=lambda row: row["arrival_seconds"])
    columns = [np.array([row[name] for row in own]) for name in ("arrival_seconds", "prompt_tokens", "tokens")]
    trace = make_trace("same", columns[0] / scale, columns[1], columns[2])
    lengths = np.ones((len(own), QUANTILES))
    if predicted:
        typical = np.median(np.array(list(predicted.values())), axis=0)
        lengths = np.array([predicted.get(row["number"], typical) for row in own])
    outcome = _simulated(trace, emulation, None if predicted is None else Policy(), lengths)
    return {row["number"]: float(seconds) for row, seconds in zip(own, outcome.e2e_seconds, strict=True)}


def _simulated(trace: Trace, emulation: Emulation, policy: Policy | None, lengths: Floats) -> Any:
    model = model_of(emulation)
    if policy is None:
        # vLLM without a host store.
        model = replace(model, shape=replace(model.shape, host_limit_bytes=0))
        return simulate(trace, model, driver_named("vllm-fcfs", Setup(trace, model, lengths)))
    return simulate(trace, model, core_driver(Setup(trace, model, lengths), policy))


def predictions(log: Path, socket_dir: Path) -> dict[int, tuple[float, ...]]:
    """Returns what the sidecar predicted at admission, by request number: the device's log has the hints, the pod's key reads them."""
    key = derived(pod_key(socket_dir), "hint")
    found = {}
    for line in log.read_text().splitlines():
        said: dict[str, Any] = json.loads(line)["extra_args"]
        hint = decode(base64.b64decode(said.get(HINT_XARG, "")), key, said.get(JOB_XARG, ""))
        if hint is not None and NUMBER in said:
            found[int(said[NUMBER])] = hint.lengths.tokens
    return found
