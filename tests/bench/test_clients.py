"""Load generators of other projects: their arguments, and how their results are read. The results come from runs with four synthetic
requests, of which vLLM refused one; what is not read was cut from them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import clients_guidellm
from tests.bench.clients import FULL, Plan, differing, figures, in_device_seconds, late_share, parted, version
from tests.bench.clients_tools import CLIENTS, PROMPTS, Client, Load, Measured, digests, prompts_file, shown
from tests.bench.harness import Row, Settings
from tests.bench.workload import Prompt
from tests.emulated.pacing import Tally

LOAD = Load("http://127.0.0.1:4711", Path("/somewhere/models/emulated"), 60, 3.5, 7)
each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.label)


def result(client: Client) -> Measured:
    return client.parse(json.loads(Path(__file__).with_name(f"clients_{client.label}.json").read_text(encoding="utf-8")))


def row(system: str, client: str = "GuideLLM", **changes: Any) -> Row:
    times = {"ttft_mean": 1.0, "tpot_mean": 0.02, "normalized_mean": 0.05, "e2e_mean": 5.0, "e2e_p99": 10.0, "seconds": 60.0}
    common = {
        "kind": "client", "client": client, "system": system, "profile": "h100-qwen3-32b", "workload": "sharegpt", "load": 0.9, "seed": 0,
        "requests": 3, "failed": 0, "time_scale": 2.0, "late_steps_share": 0.0, "answers": ["a", "b", "b"],
    }  # fmt: skip
    return {**common, **times, **changes}


def values(rows: list[Row]) -> dict[str, float]:
    return {figure.name: figure.value for figure in figures(rows, Settings(True, 1, None))}


# --- what a client is asked for -------------------------------------------------------------------------------------------------------
@each_client
def test_a_client_is_asked_for_a_poisson_process(client: Client) -> None:
    words = " ".join(client.arguments(LOAD))
    assert "--request-rate 3.5000 --burstiness 1 " in words or "kind=poisson,rate=3.5000 " in words


@each_client
def test_no_request_says_how_long_its_answer_is(client: Client) -> None:
    words = " ".join(client.arguments(LOAD))
    assert '"max_completion_tokens": null' in words or "max_tokens" not in words
    assert "ignore" not in words
    assert [json.loads(line) for line in prompts_file(["Why?", "A\nB"]).splitlines()] == [{"prompt": "Why?"}, {"prompt": "A\nB"}]


@each_client
def test_the_command_line_that_is_kept_has_no_path_and_no_port_of_this_machine(client: Client) -> None:
    line = shown(client, "/somewhere/bin/program", client.arguments(LOAD), LOAD)
    assert "somewhere" not in line
    assert "4711" not in line
    assert "program " in line
    assert PROMPTS in line


@each_client
def test_a_clients_version_is_that_of_its_lock(client: Client) -> None:
    assert version(client).startswith({"vllm_bench": "0.32.0", "guidellm": "0.8.1"}[client.label])


def test_torch_is_taken_from_the_lock_alone_with_its_checksums() -> None:
    assert clients_guidellm.torch_alone(
        "sympy==1 \\\n    --hash=sha256:a\ntorch==2 \\\n    --hash=sha256:b \\\n    --hash=sha256:c\nz==3\n"
    ) == ("torch==2 \\\n    --hash=sha256:b \\\n    --hash=sha256:c\n")


# --- what it says ---------------------------------------------------------------------------------------------------------------------
@each_client
def test_a_refused_request_is_a_failed_one(client: Client) -> None:
    said = result(client)
    assert (said.requests, said.failed, len(said.answers)) == (4, 1, 3)
    assert "Bad Request" in said.error


@pytest.mark.parametrize(
    ("client", "times"),
    [
        pytest.param(CLIENTS[0], (0.106789, 0.026619, 0.035527, 0.319742, 0.356896, 1.296494), id="vllm_bench"),
        pytest.param(CLIENTS[1], (0.041033, 0.022925, 0.027357, 0.246217, 0.246837, 1.104325), id="guidellm"),
    ],
)
def test_times_are_read_in_seconds(client: Client, times: tuple[float, ...]) -> None:
    said = result(client)
    assert (said.ttft_mean, said.tpot_mean, said.normalized_mean, said.e2e_mean, said.e2e_p99, said.seconds) == pytest.approx(
        times, rel=1e-4
    )


def test_both_clients_read_the_same_answers() -> None:
    assert result(CLIENTS[0]).answers == result(CLIENTS[1]).answers


def test_times_are_the_devices() -> None:
    said = in_device_seconds(Measured(4, 1, 2.0, 0.4, 0.6, 6.0, 8.0, 10.0, ("a",)), 2.0)
    assert [said[name] for name in ("ttft_mean", "tpot_mean", "normalized_mean", "e2e_p99", "seconds", "requests")] == [
        1,
        0.2,
        0.3,
        4,
        5,
        4,
    ]


def test_late_steps_are_a_share_of_all() -> None:
    assert (late_share(Tally()), late_share(Tally().step(0.1, 0.02).step(0.1, 0.0))) == (0.0, 0.5)


# --- which requests -------------------------------------------------------------------------------------------------------------------
def test_no_prompt_is_sent_twice() -> None:
    prompts = [Prompt(f"{number % 100}", 5) for number in range(300)]
    parts = parted(prompts, Plan((0.9,), 30, 20, 100, 100))
    texts = [prompt.text for part in parts for prompt in part]
    assert [len(part) for part in parts] == [20, 30, 30]
    assert len(set(texts)) == len(texts)


def test_a_small_data_set_gives_each_client_as_many() -> None:
    prompts = [Prompt(f"{number}", 5) for number in range(150 + 41)]
    assert [len(part) for part in parted(prompts, FULL)] == [150, 20, 20]


def test_a_data_set_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="the data set has 3 different prompts"):
        parted([Prompt(f"{number}", 5) for number in range(3)], FULL)


# --- figures --------------------------------------------------------------------------------------------------------------------------
def test_ratios_are_paired_by_seed() -> None:
    rows = [
        row("stock", ttft_mean=2.0),
        row("alise", ttft_mean=1.0),
        row("stock", seed=1, ttft_mean=1.0),
        row("alise", seed=1, ttft_mean=0.9),
    ]
    assert values(rows)["client_ttft_mean_vs_stock_guidellm_load090_h100_sharegpt"] == pytest.approx(0.7)


def test_a_seed_that_one_system_lacks_is_left_out() -> None:
    found = values([row("stock"), row("alise", e2e_p99=9.0), row("stock", seed=1)])
    assert found["client_e2e_p99_vs_stock_guidellm_load090_h100_sharegpt"] == pytest.approx(0.9)


def test_failed_requests_are_counted_for_each_system() -> None:
    found = values([row("stock"), row("alise", failed=2)])
    assert found["client_failed_requests_guidellm_stock_h100_sharegpt"] == 0
    assert found["client_failed_requests_guidellm_alise_h100_sharegpt"] == 2


@pytest.mark.parametrize(
    ("alise", "differ"),
    [
        pytest.param(["b", "a", "b"], 0, id="the same ones"),
        pytest.param(["a", "b", "c"], 1, id="another one"),
        pytest.param(["a", "b"], 0, id="one failed"),
    ],
)
def test_answers_are_compared_with_stock_vllms(alise: list[str], differ: int) -> None:
    assert differing(row("stock"), row("alise", answers=alise)) == differ


def test_an_answer_that_stock_vllm_failed_to_give_is_no_other_one() -> None:
    assert differing(row("stock", answers=["a", "b"]), row("alise")) == 0


def test_equal_texts_are_told_apart_from_missing_ones() -> None:
    assert len(digests(["same", "same", ""])) == 3
