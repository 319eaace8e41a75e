"""Third-party load generators: the command line of each, the data set in the format that it reads, and what its JSON result says. Pure.

`clients.py` calls it.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# The name by which the server serves its model.
SERVED: Final = "tiny"
PROMPTS: Final = "prompts.jsonl"
RESULT: Final = "result.json"
_SHOWN_ERROR: Final = 300


@dataclass(frozen=True, slots=True)
class Load:
    """What a client is asked for: as many requests as there are prompts, at moments of a Poisson process of its own."""

    url: str
    tokenizer: Path
    requests: int
    per_second: float
    seed: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a client reports of one run, in wall seconds, of the requests that succeeded.

    `tpot_mean` is the client's own mean: `vllm bench serve` gives each request the same weight, GuideLLM each token.
    """

    requests: int
    failed: int
    ttft_mean: float
    tpot_mean: float
    # End to end per output token, the mean over requests.
    normalized_mean: float
    e2e_mean: float
    e2e_p99: float
    seconds: float
    # Short digests of the answers' texts, sorted.
    answers: tuple[str, ...]
    # What the first failed request says.
    error: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """One load generator. Its arguments follow its program; it runs in a folder with the prompts and leaves its result there."""

    name: str
    label: str
    arguments: Callable[[Load], list[str]]
    parse: Callable[[Mapping[str, Any]], Measured]
    # Settings that it reads from its environment.
    settings: Mapping[str, str] = field(default_factory=dict)


def prompts_file(texts: Sequence[str]) -> str:
    """Returns JSON lines with a column `prompt`, which is what both take. No length of an answer is in it."""
    return "".join(json.dumps({"prompt": text}) + "\n" for text in texts)


def shown(client: Client, program: str, arguments: Sequence[str], load: Load) -> str:
    """Returns the command line without this machine's paths and ports."""
    words = [word.replace(str(load.tokenizer), "MODEL").replace(load.url, "URL") for word in arguments]
    return " ".join([*(f"{name}={value}" for name, value in client.settings.items()), shlex.join([Path(program).name, *words])])


# --- vllm bench serve -----------------------------------------------------------------------------------------------------------------
def vllm_arguments(load: Load) -> list[str]:
    """Returns the arguments of `vllm`. A cap on the answer's length, which the tool always sends, would tell the server the length."""
    return [
        *("bench", "serve", "--backend", "openai-chat", "--base-url", load.url, "--endpoint", "/v1/chat/completions"),
        *("--model", SERVED, "--tokenizer", str(load.tokenizer)),
        *("--dataset-name", "custom", "--dataset-path", PROMPTS, "--skip-chat-template", "--num-prompts", str(load.requests)),
        *("--extra-body", '{"max_completion_tokens": null}'),
        *("--request-rate", f"{load.per_second:.4f}", "--burstiness", "1", "--seed", str(load.seed)),
        *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "99"),
        *("--disable-tqdm", "--save-result", "--save-detailed", "--result-dir", ".", "--result-filename", RESULT),
    ]


def vllm_result(result: Mapping[str, Any]) -> Measured:
    """Reads the file of `--save-result --save-detailed`."""
    errors = [error for error in result["errors"] if error]
    return Measured(
        requests=int(result["num_prompts"]),
        failed=int(result["failed"]),
        ttft_mean=result["mean_ttft_ms"] / 1000,
        tpot_mean=result["mean_tpot_ms"] / 1000,
        normalized_mean=mean([took / tokens for took, tokens in zip(result["latencies"], result["output_lens"], strict=True) if tokens]),
        e2e_mean=result["mean_e2el_ms"] / 1000,
        e2e_p99=result["p99_e2el_ms"] / 1000,
        seconds=float(result["duration"]),
        answers=digests(text for text, error in zip(result["generated_texts"], result["errors"], strict=True) if not error),
        error=str(errors[0])[-_SHOWN_ERROR:] if errors else "",
    )


# --- GuideLLM -------------------------------------------------------------------------------------------------------------------------
def guidellm_arguments(load: Load) -> list[str]:
    """Returns the arguments of `guidellm`, which sends no cap on the answer's length unless the data set has a column with one."""
    return [
        *("run", "--backend", f"kind=openai_http,target={load.url},model={SERVED}"),
        *("--profile", f"kind=poisson,rate={load.per_second:.4f}", "--constraint", f"kind=max_requests,count={load.requests}"),
        *("--data", f"kind=json_file,path={PROMPTS}", "--tokenizer", f"kind=hf_auto,model={load.tokenizer}"),
        *("--seed", f"kind=static,value={load.seed}"),
        *("--output", f"kind=json,path={RESULT}", "--disable-console"),
    ]


def guidellm_result(result: Mapping[str, Any]) -> Measured:
    """Reads the report of `--output kind=json`, with one benchmark in it."""
    (benchmark,) = result["benchmarks"]
    metrics, requests = benchmark["metrics"], benchmark["requests"]
    bad = [*requests["errored"], *requests["incomplete"]]
    totals = metrics["request_totals"]
    good = {name: metrics[name]["successful"] for name in ("time_to_first_token_ms", "inter_token_latency_ms", "request_latency")}
    return Measured(
        requests=int(totals["total"]),
        failed=int(totals["errored"]) + int(totals["incomplete"]),
        ttft_mean=good["time_to_first_token_ms"]["mean"] / 1000,
        tpot_mean=good["inter_token_latency_ms"]["mean"] / 1000,
        normalized_mean=mean([request["request_latency"] / max(1, request["output_tokens"] or 0) for request in requests["successful"]]),
        e2e_mean=good["request_latency"]["mean"],
        e2e_p99=good["request_latency"]["percentiles"]["p99"],
        seconds=float(benchmark["duration"]),
        answers=digests(request["output"] or "" for request in requests["successful"]),
        error=str(bad[0]["info"].get("error") or "incomplete")[-_SHOWN_ERROR:] if bad else "",
    )


def mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def digests(texts: Any) -> tuple[str, ...]:
    """Returns a short digest of each text, sorted: clients report answers in different orders."""
    return tuple(sorted(hashlib.blake2b(text.encode(), digest_size=4).hexdigest() for text in texts))


CLIENTS: Final = (
    Client("vllm bench serve", "vllm_bench", vllm_arguments, vllm_result),
    # Several processes would each take the next prompt at a moment of their own, so that two systems get other prompts at the same moments.
    Client("GuideLLM", "guidellm", guidellm_arguments, guidellm_result, {"GUIDELLM__MAX_WORKER_PROCESSES": "1"}),
)
