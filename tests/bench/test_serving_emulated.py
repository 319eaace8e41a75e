"""What the comparison on an emulated device counts, and in whose seconds."""

from typing import Any

import pytest

from tests.bench.harness import Row, Settings
from tests.bench.serving_client import usage_in
from tests.bench.serving_emulated import Plan, alone_seconds, distance_pct, figures, in_device_seconds, parted, within
from tests.bench.serving_simulated import capacity_per_second, end_seconds, model_of
from tests.bench.workload import Prompt
from tests.emulated.launch import Emulation
from tests.emulated.pacing import Device

DEVICE = Device("test", 0.010, 0.0001, 0.0002, 0.0, 4096, 32 * 101, 1e9, 1e9, time_scale=2.0)
EMULATION = Emulation(DEVICE, slots=8, step_tokens=512, max_model_len=1024, host_bytes=1 << 30)


def request(system: str, number: int, **changes: Any) -> Row:
    return {
        "kind": "request", "system": system, "seed": 0, "load": 0.9, "workload": "alpaca", "device": "h100-qwen3-32b", "time_scale": 2.0,
        "number": number, "arrival_seconds": float(number), "ttft_seconds": 1.0, "end_seconds": 4.0, "alone_seconds": 1.0,
        "prompt_tokens": 20, "tokens": 10, "error": "", "simulated_seconds": 4.0, "ranked": system == "alise",
        **changes,
    }  # fmt: skip


def run(system: str, **changes: Any) -> Row:
    return {
        "kind": "run", "system": system, "seed": 0, "load": 0.9, "tokens": 100, "seconds": 10.0, "requests": 10,
        "cpu_seconds": {"engine_core": 1.0, "api_server": 0.1, "sidecar": 0.0},
        "tally": {"steps": 100, "busy_seconds": 9.0, "late_steps": 5, "late_seconds": 0.9}, **changes,
    }  # fmt: skip


def test_usage_is_read_from_the_end_of_a_stream() -> None:
    tail = (
        b'...half a line"}\n\ndata: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\ndata: [DONE]\n\n'
    )
    assert usage_in(tail) == {"prompt_tokens": 7, "completion_tokens": 3}


def test_a_stream_that_was_cut_has_no_usage() -> None:
    assert usage_in(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n') == {}


def test_times_are_reported_in_the_devices_seconds() -> None:
    row = in_device_seconds(request("stock", 3), EMULATION)
    assert (row["arrival_seconds"], row["ttft_seconds"], row["end_seconds"]) == (1.5, 0.5, 2.0)


def test_a_request_alone_takes_its_prefill_and_a_step_per_token() -> None:
    assert alone_seconds(request("stock", 0), EMULATION) == pytest.approx(0.010 + 20 * 0.0001 + 9 * (0.010 + 0.0002))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"end_seconds": 10.0}, True, id="ten times as long is within"),
        pytest.param({"end_seconds": 10.1}, False, id="longer is not"),
        pytest.param({"error": "429"}, False, id="a failed request never is"),
    ],
)
def test_who_is_within_ten_times(changes: dict[str, Any], expected: bool) -> None:
    assert within(request("alise", 0, **changes)) is expected


def test_the_distance_to_the_simulator_is_that_of_the_means() -> None:
    assert distance_pct([request("stock", 0, simulated_seconds=3.0), request("stock", 1, simulated_seconds=5.4)]) == pytest.approx(5.0)


def test_figures_are_ratios_shares_and_cpu_per_request() -> None:
    rows = [request("stock", 0), request("alise", 0, ttft_seconds=0.25, end_seconds=5.0, simulated_seconds=4.5), run("stock")]
    rows += [run("alise", cpu_seconds={"engine_core": 1.0, "api_server": 0.13, "sidecar": 0.05})]
    made = {figure.name: figure for figure in figures(rows, Settings(True, 1, None))}
    assert made["emulated_mean_ttft_vs_stock_load090_h100"].value == pytest.approx(0.25)
    assert made["emulated_p99_e2e_vs_stock_load090_h100"].value == pytest.approx(1.25)
    assert made["sim_vs_emulated_e2e_mean_pct"].value == pytest.approx(10.0)
    assert made["late_steps_share_alise_load090_h100"].value == pytest.approx(0.05)
    assert made["sidecar_cpu_ms_per_request"].value == pytest.approx(5.0)
    assert made["api_cpu_ms_over_stock"].value == pytest.approx(3.0)
    assert (made["emulated_mean_ttft_vs_stock_load090_h100"].goal, made["sidecar_cpu_ms_per_request"].goal) == (0.35, 6)


def test_requests_that_the_sidecar_did_not_answer_for_in_time_are_counted() -> None:
    rows = [request("stock", 0), request("stock", 1), request("alise", 0), request("alise", 1, ranked=False), run("stock"), run("alise")]
    made = {figure.name: figure.value for figure in figures(rows, Settings(True, 1, None))}
    assert made["emulated_unranked_share_load090_h100"] == 0.5


def test_a_request_without_a_prediction_is_simulated_with_the_others() -> None:
    ends = end_seconds([request("alise", 0), request("alise", 1, ranked=False)], {0: (10.0,) * 10}, EMULATION)
    assert set(ends) == {0, 1}


def test_the_simulator_has_the_device_in_its_own_seconds() -> None:
    model = model_of(EMULATION)
    assert (model.cost.step_seconds, model.shape.num_device_blocks, model.shape.block_bytes) == (0.010, 100, 32 * 4096)


def test_the_capacity_is_what_all_slots_serve() -> None:
    # Eight slots, each of them a token in 11.6 ms, and a prefill of 2 ms now and then.
    per_second = capacity_per_second([(20, 50)] * 200, EMULATION)
    assert per_second == pytest.approx(8 / (50 * 0.0116 + 8 * 0.002), rel=0.05)


def test_a_request_that_failed_is_not_simulated() -> None:
    rows = [request("stock", 0), request("stock", 1, error="429: later")]
    ends = end_seconds(rows, None, EMULATION)
    assert list(ends) == [0]
    assert ends[0] == pytest.approx(alone_seconds(rows[0], EMULATION), rel=0.02)


def test_no_prompt_is_sent_twice() -> None:
    prompts = [Prompt(f"p{number}", number % 50 + 1) for number in range(200)]
    parts = parted(prompts, Plan((0.5, 1.0), 10.0, 20, 10), capacity=4.0)
    assert [len(part) for part in parts] == [20, 20, 40]
    assert len({prompt for part in parts for prompt in part}) == 80
    assert max(prompt.output_tokens for prompt in parts[0]) == 10


def test_a_small_data_set_is_shared_among_the_loads() -> None:
    prompts = [Prompt(f"p{number}", 5) for number in range(40)]
    assert [len(part) for part in parted(prompts, Plan((0.5, 1.0), 10.0, 10, 10), capacity=4.0)] == [10, 10, 20]
