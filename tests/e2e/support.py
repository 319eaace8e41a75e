"""What the tests of `tests/e2e` ask of a cluster: which children a resource has, and streamed answers. It changes nothing there. Everything
is real: kubectl, pods, Envoy, the openai client.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from openai import APIStatusError, OpenAI

from alise_contract.names import ENGINE_LABEL
from tests.cluster.resource import Resource, wait_until

MODEL = "tiny"
MEASURED_TOKENS = 200


def children(resource: Resource) -> list[str]:
    """What still carries the resource's label: every kind that the operator could have created, and what these create."""
    kinds = (
        "deployments,replicasets,services,endpoints,ingresses,poddisruptionbudgets,serviceaccounts,secrets,configmaps,"
        "networkpolicies,persistentvolumeclaims,pods"
    )
    return resource.kubectl("get", kinds, "-l", f"{ENGINE_LABEL}={resource.name}", "-o", "name").split()


class CutStream(Exception):
    """An answer that ended before its last token, however politely."""


def chat(client: OpenAI, prompt: str, max_tokens: int, model: str = MODEL) -> Iterator[str]:
    """Stream an answer of exactly `max_tokens` tokens at temperature 0, token text by token text. Raises CutStream when it is shorter."""
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=max_tokens,
        temperature=0.0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    tokens = 0
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content
        if chunk.usage is not None:
            tokens = chunk.usage.completion_tokens
    if tokens != max_tokens:
        raise CutStream(f"{prompt!r} ended after {tokens} of {max_tokens} tokens")


def tokens_in(client: OpenAI, seconds: float) -> int:
    """Tokens of an answer that streams for about this long while nothing else runs. Machines differ by a factor of five."""
    began = time.monotonic()
    for _ in chat(client, "How fast are you?", MEASURED_TOKENS):
        pass
    return max(1000, min(15_000, int(seconds * MEASURED_TOKENS / (time.monotonic() - began))))


@dataclass
class Stream:
    """An answer that a thread reads. `text` grows; `error` says how it ended badly."""

    client: OpenAI
    prompt: str
    max_tokens: int
    pieces: list[str] = field(default_factory=list)
    first_token_seconds: float | None = None
    ended_seconds: float | None = None
    error: BaseException | None = None
    _thread: threading.Thread | None = None

    def start(self) -> "Stream":
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def _read(self) -> None:
        began = time.monotonic()
        try:
            for piece in chat(self.client, self.prompt, self.max_tokens):
                if self.first_token_seconds is None:
                    self.first_token_seconds = time.monotonic() - began
                self.pieces.append(piece)
        except BaseException as error:
            self.error = error
        self.ended_seconds = time.monotonic() - began

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def wait_started(self, timeout_seconds: float = 60.0) -> "Stream":
        wait_until(f"first token of {self.prompt!r}", lambda: self.pieces or self.error, timeout_seconds, 0.02)
        if self.error is not None:
            raise self.error
        return self

    def result(self, timeout_seconds: float = 300.0) -> str:
        """The whole text. Raises what ended it, or TimeoutError."""
        assert self._thread is not None, "start() first"
        self._thread.join(timeout_seconds)
        if self.error is not None:
            raise self.error
        if self._thread.is_alive():
            raise TimeoutError(f"{self.prompt!r} is not answered after {timeout_seconds:.0f} s; {len(self.pieces)} pieces so far")
        return self.text


def answers(client: OpenAI) -> bool:
    """Whether a stream comes whole. The gateway hears of a route or a pod a moment after the operator does."""
    try:
        Stream(client, "Which way did you come?", 10).start().result()
    except APIStatusError:
        return False
    return True
