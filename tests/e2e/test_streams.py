"""One replica: answers stream, cancelling ends the work, and a long answer gives way to a short one without losing a token."""

import time

import openai
import pytest
from openai import OpenAI

from tests.cluster.resource import Resource, wait_until
from tests.e2e.support import Stream, chat, tokens_in

pytestmark = pytest.mark.e2e

LONG_SECONDS = 8.0


def test_a_chat_completion_streams_through_the_ingress(tiny: Resource, client: OpenAI) -> None:
    pieces = list(chat(client, "Say something.", max_tokens=40))
    assert len(pieces) > 5, f"came in {len(pieces)} pieces: {pieces}"


def test_cancelling_a_stream_ends_the_request_in_the_engine_within_a_second(tiny: Resource, client: OpenAI) -> None:
    pod = tiny.only_pod()
    stream = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Go on."}], max_tokens=12000, stream=True, extra_body={"ignore_eos": True}
    )
    next(stream)
    wait_until("the request showing in the pod's status", lambda: tiny.requests_in_engine(pod) == 1, 10, every_seconds=0.05)
    stream.close()
    closed = time.monotonic()
    wait_until("the cancelled request leaving the engine", lambda: tiny.requests_in_engine(pod) == 0, 10, every_seconds=0.05)
    assert time.monotonic() - closed < 1.0


def test_a_long_answer_gives_way_to_a_short_one_and_resumes_exactly(tiny: Resource, client: OpenAI) -> None:
    pod = tiny.only_pod()
    prompts = ("Tell me about bridges.", "Tell me about rivers.")
    tokens = tokens_in(client, LONG_SECONDS)
    alone = [Stream(client, prompt, tokens).start().result() for prompt in prompts]
    before = tiny.status(pod)["counters"]

    # Both slots are taken by long answers; a short one arrives.
    longs = [Stream(client, prompt, tokens).start() for prompt in prompts]
    for stream in longs:
        stream.wait_started()
    short = Stream(client, "Hi!", 4).start()
    short.result()
    assert all(stream.ended_seconds is None for stream in longs), "the short answer waited for a long one to end"
    assert [stream.result() for stream in longs] == alone

    after = tiny.status(pod)["counters"]
    grown = {name: int(after.get(name, 0)) - int(before.get(name, 0)) for name in after if name != "free_device_blocks"}
    assert grown["preemptions_rank"] >= 1
    assert grown["exact_resumes"] == grown["preemptions_rank"]
    assert grown["restores"] == grown["preemptions_rank"]
    assert grown.get("recomputes", 0) == 0


def test_the_engines_own_client_errors_pass_through(tiny: Resource, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="other-model"):
        client.chat.completions.create(model="other-model", messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x " * 10000}])
