"""What `make run` says at its end: numbers in, text out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.harness import median

ANSWER_TOKENS = "alise_scheduler_answer_tokens_total"
# Answers that ended by themselves: one cut by its own length limit says nothing about the prediction.
STOPPED = "alise_scheduler_length_ratio_count"


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer as its client saw it."""

    kind: str
    first_token_seconds: float
    seconds: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """From the request to its end: tokens of a short answer may all come in one piece."""
        return self.tokens / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class PodNumbers:
    """One pod since it started, from its status and its sidecar's metrics."""

    requests: int
    failed_open: int
    preemptions: int
    restores: int
    recomputes: int
    answers: int
    predicted_tokens: float
    real_tokens: float

    def since(self, before: "PodNumbers") -> "PodNumbers":
        """What came on top of `before`."""
        return PodNumbers(*(getattr(self, name) - getattr(before, name) for name in self.__dataclass_fields__))


NOTHING = PodNumbers(0, 0, 0, 0, 0, 0, 0.0, 0.0)


def pod_numbers(status: Mapping[str, Any], metrics: str) -> PodNumbers:
    """From the pod's StatusReport as JSON and its sidecar's metrics page. Protobuf leaves zeros out and writes large numbers as text."""
    admission, counters = status.get("admission", {}), status.get("counters", {})
    samples = {
        (sample.name, sample.labels.get("kind", "")): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    return PodNumbers(
        requests=int(admission.get("requests", 0)),
        failed_open=int(admission.get("failed_open", 0)),
        preemptions=sum(int(counters.get(name, 0)) for name in ("preemptions_rank", "preemptions_memory")),
        restores=int(counters.get("restores", 0)),
        recomputes=int(counters.get("recomputes", 0)),
        answers=int(samples.get((STOPPED, ""), 0)),
        predicted_tokens=samples.get((ANSWER_TOKENS, "predicted"), 0.0),
        real_tokens=samples.get((ANSWER_TOKENS, "real"), 0.0),
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the first is text, the others are numbers."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  " + "   ".join(cells).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def answers_table(answers: Sequence[Answer]) -> str:
    """One row per kind of request, in order of appearance."""
    rows = []
    for kind in dict.fromkeys(answer.kind for answer in answers):
        of_kind = [answer for answer in answers if answer.kind == kind]
        first = [answer.first_token_seconds for answer in of_kind]
        speed = [answer.tokens_per_second for answer in of_kind]
        rows.append(
            [
                kind,
                str(len(of_kind)),
                f"{median(first) * 1e3:.0f} ms",
                f"{max(first) * 1e3:.0f} ms",
                f"{median(speed):.0f}",
            ]
        )
    return table(["requests", "n", "TTFT median", "TTFT worst", "tokens/s each"], rows)


def pods_table(pods: Mapping[str, PodNumbers]) -> str:
    """One row per pod."""
    rows = [
        [
            name,
            str(pod.requests),
            str(pod.failed_open),
            str(pod.preemptions),
            str(pod.restores),
            str(pod.recomputes),
            _mean(pod.predicted_tokens, pod.answers),
            _mean(pod.real_tokens, pod.answers),
        ]
        for name, pod in sorted(pods.items())
    ]
    return table(["pod", "requests", "unranked", "preempted", "restored", "recomputed", "tokens predicted", "tokens real"], rows)


def _mean(total: float, count: int) -> str:
    return f"{total / count:.0f}" if count else "-"


def next_commands(
    kubeconfig: str, url: str, host: str, gateway: str | None, down: str | None, plugin_folder: str, kubectl_folder: str | None = None
) -> str:
    """What to type next. `gateway` is the command that opens the ingress again, `down` the one that ends the cluster.

    `plugin_folder` is where kubectl's plugin lies, and `kubectl_folder` where a kubectl lies, on a machine that has none on its PATH.
    """
    folders = [plugin_folder, *([kubectl_folder] if kubectl_folder else [])]
    lines = ["Go on with:", f"  export KUBECONFIG={kubeconfig}", f"  export PATH={':'.join(folders)}:$PATH"]
    lines += ["  kubectl get alise", "  kubectl describe alise tiny", "  kubectl alise status tiny", "  kubectl alise top tiny"]
    if gateway:
        lines.append(f"  {gateway}")
    body = '{"model": "tiny", "stream": true, "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}'
    lines.append(f"  curl -iN {url}/v1/chat/completions -H 'Host: {host}' -H 'Content-Type: application/json' -d '{body}'")
    lines.append("  kubectl alise explain tiny ID   # why a request waited; ID is the x-request-id of its answer")
    if down:
        lines.append(f"  {down}")
    return "\n".join(lines)
