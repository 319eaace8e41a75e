"""What admission learns from a body."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alise_contract.describe import MAX_SAMPLES, Description, Endpoint, describe
from alise_contract.names import MAX_PROMPT_BYTES
from alise_contract.prompts import MAX_MESSAGES
from alise_engine.api.admission import Ask, request_message

CHAT, COMPLETIONS, RESPONSES, MESSAGES = Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES
OTHER = Endpoint.OTHER


def described(endpoint: Endpoint, body: dict[str, Any]) -> Description:
    description = describe(endpoint, body)
    assert description.endpoint is endpoint
    return description


def chat(*messages: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": role, "content": content} for role, content in messages], **more}


PICTURE = {"type": "image_url", "image_url": {"url": "data:..."}}

NEWEST_TEXT = [
    pytest.param(CHAT, chat(("user", "hi")), "hi", 1, 2, id="a single chat message"),
    pytest.param(CHAT, chat(("system", "be brief"), ("user", "hi")), "hi", 2, 10, id="a system message counts as turn and characters"),
    pytest.param(CHAT, chat(("user", "a"), ("assistant", "bb"), ("user", "ccc")), "ccc", 3, 6, id="the newest user message"),
    pytest.param(CHAT, chat(("user", "a"), ("tool", "42")), "a", 2, 3, id="a tool's answer is not the user's text"),
    pytest.param(CHAT, chat(("assistant", "a"), ("tool", "42")), "42", 2, 3, id="without a user the last message"),
    pytest.param(CHAT, chat(("user", [{"type": "text", "text": "see"}, PICTURE])), "see", 1, 3, id="the text parts of a picture"),
    pytest.param(CHAT, chat(("assistant", None), ("user", "hi")), "hi", 2, 2, id="a message without content"),
    pytest.param(COMPLETIONS, {"prompt": "once"}, "once", 1, 4, id="a completion's prompt"),
    pytest.param(COMPLETIONS, {"prompt": ["a", "bb"]}, "a\nbb", 1, 3, id="several prompts"),
    pytest.param(COMPLETIONS, {"prompt": [1, 2, 3]}, "", 1, 12, id="token ids have no text but a size"),
    pytest.param(RESPONSES, {"input": "hi"}, "hi", 1, 2, id="a response's input"),
    pytest.param(RESPONSES, {"input": "hi", "instructions": "be brief"}, "hi", 2, 10, id="a response's instructions"),
    pytest.param(
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
        "hi",
        1,
        2,
        id="a response's input items",
    ),
    pytest.param(COMPLETIONS, {"prompt": [72.0, 105.0]}, "", 1, 8, id="token ids written as floats (R1)"),
    pytest.param(MESSAGES, chat(("user", "hi"), system="be brief"), "hi", 2, 10, id="Anthropic's system prompt (A18)"),
    pytest.param(
        MESSAGES,
        chat(("user", [{"type": "text", "text": "hi"}]), system=[{"type": "text", "text": "be brief"}]),
        "hi",
        2,
        10,
        id="Anthropic's blocks",
    ),
]


@pytest.mark.parametrize(("endpoint", "body", "prompt", "turns", "chars"), NEWEST_TEXT)
def test_the_newest_user_text_is_the_prompt(endpoint: Endpoint, body: dict[str, Any], prompt: str, turns: int, chars: int) -> None:
    description = described(endpoint, body)
    assert (description.prompt, description.turns, description.prompt_chars) == (prompt, turns, chars)


NOT_UNDERSTOOD = [
    pytest.param(CHAT, [], id="not an object"),
    pytest.param(CHAT, {"model": "tiny"}, id="chat without messages"),
    pytest.param(CHAT, {"messages": []}, id="no message"),
    pytest.param(CHAT, {"messages": "hi"}, id="messages that are a string"),
    pytest.param(CHAT, {"messages": ["hi"]}, id="a message that is a string"),
    pytest.param(COMPLETIONS, {"prompt": None}, id="a completion without prompt"),
    pytest.param(COMPLETIONS, {"prompt": ["a", 1]}, id="a mixed list of prompts"),
    pytest.param(RESPONSES, {"input": 7}, id="an input that is a number"),
    pytest.param(RESPONSES, {"input": [], "instructions": "hi"}, id="an empty input, which vLLM serves (R1)"),
    pytest.param(MESSAGES, {"messages": {}}, id="Anthropic's messages as an object"),
]


@pytest.mark.parametrize(("endpoint", "body"), NOT_UNDERSTOOD)
def test_a_body_that_is_not_understood_is_ranked_neutral(endpoint: Endpoint, body: Any) -> None:
    description = describe(endpoint, body)
    assert (description.endpoint, description.prompt, description.conversation) == (OTHER, "", "")


@pytest.mark.parametrize(
    ("body", "n"),
    [
        pytest.param({"messages": [[], [], []]}, 3, id="a batch of chats"),
        pytest.param({"messages": [{}, {}]}, 1, id="one chat of several messages"),
        pytest.param({"input": ["a", "b"], "n": 2}, 4, id="a list of inputs"),
        pytest.param({"input": "abc"}, 1, id="one input"),
    ],
)
def test_of_another_routes_body_the_engine_requests_are_counted(body: dict[str, Any], n: int) -> None:
    assert describe(OTHER, body).n == n


LIMITS = [
    pytest.param(CHAT, {"max_tokens": 7}, 7, id="max_tokens"),
    pytest.param(CHAT, {"max_tokens": 7, "max_completion_tokens": 5}, 5, id="max_completion_tokens wins"),
    pytest.param(CHAT, {}, 0, id="none in chat"),
    pytest.param(CHAT, {"max_tokens": -3}, 0, id="a negative one is none"),
    pytest.param(CHAT, {"max_tokens": True}, 0, id="a boolean is none"),
    pytest.param(CHAT, {"max_tokens": 10**12}, 2**32 - 1, id="an enormous one is clamped"),
    pytest.param(COMPLETIONS, {}, 16, id="a completion's default"),
    pytest.param(COMPLETIONS, {"max_tokens": None}, 16, id="null is a completion's default, as in vLLM (A20)"),
    pytest.param(COMPLETIONS, {"max_tokens": 100.0}, 100, id="a float that is whole (A20)"),
    pytest.param(COMPLETIONS, {"max_tokens": "100"}, 100, id="a number as text"),
    pytest.param(COMPLETIONS, {"max_tokens": 0, "echo": True, "logprobs": 1}, 1, id="scoring a prompt takes one step (A20)"),
    pytest.param(CHAT, {"max_completion_tokens": None, "max_tokens": 5}, 5, id="max_completion_tokens null beside max_tokens (A20)"),
    pytest.param(MESSAGES, {"max_tokens": 9}, 9, id="Anthropic's max_tokens"),
    pytest.param(RESPONSES, {"max_output_tokens": 9}, 9, id="max_output_tokens"),
]
BODIES = {CHAT: chat(("user", "hi")), COMPLETIONS: {"prompt": "hi"}, RESPONSES: {"input": "hi"}, MESSAGES: chat(("user", "hi"))}


LEAST = [
    pytest.param(CHAT, {}, 0, id="none"),
    pytest.param(CHAT, {"min_tokens": 7, "max_tokens": 9}, 7, id="min_tokens"),
    pytest.param(CHAT, {"min_tokens": 9, "max_tokens": 7}, 7, id="never more than the limit"),
    pytest.param(CHAT, {"ignore_eos": True, "max_tokens": 9}, 9, id="ignore_eos goes on until the limit, as in benchmarks"),
    pytest.param(CHAT, {"ignore_eos": True}, 2**32 - 1, id="ignore_eos without a limit"),
    pytest.param(COMPLETIONS, {"ignore_eos": True}, 16, id="ignore_eos with a completion's default limit"),
    pytest.param(CHAT, {"ignore_eos": True, "max_tokens": 9, "stop": ["\n"]}, 0, id="ignore_eos with a text that stops it"),
    pytest.param(CHAT, {"ignore_eos": True, "max_tokens": 9, "stop_token_ids": [3]}, 0, id="ignore_eos with tokens that stop it"),
    pytest.param(CHAT, {"ignore_eos": True, "max_tokens": 9, "stop": [], "stop_token_ids": None}, 9, id="ignore_eos with empty stops"),
    pytest.param(
        CHAT, {"ignore_eos": True, "max_tokens": 9, "response_format": {"type": "json_object"}}, 0, id="ignore_eos with a grammar that ends"
    ),
    pytest.param(CHAT, {"ignore_eos": "Yes", "max_tokens": 9}, 9, id="ignore_eos in a word, as vLLM's parser takes it"),
    pytest.param(CHAT, {"ignore_eos": 1.0, "max_tokens": 9}, 9, id="ignore_eos as a number"),
    pytest.param(CHAT, {"ignore_eos": "perhaps", "min_tokens": "many"}, 0, id="values that vLLM refuses"),
    pytest.param(CHAT, {"min_tokens": "7"}, 7, id="a number as text"),
    pytest.param(CHAT, {"min_tokens": 7, "stop": "."}, 7, id="no text stops it before min_tokens"),
    pytest.param(CHAT, {"min_tokens": 7, "structured_outputs": {"regex": "a"}}, 0, id="a grammar ends before min_tokens"),
    pytest.param(CHAT, {"min_tokens": 7, "use_beam_search": True}, 0, id="a beam search knows no min_tokens"),
    pytest.param(
        CHAT, {"ignore_eos": True, "repetition_detection": {"max_pattern_size": 3}}, 0, id="ignore_eos with an end to repetitions"
    ),
    pytest.param(RESPONSES, {"ignore_eos": True, "max_output_tokens": 9}, 9, id="a response with ignore_eos"),
    pytest.param(RESPONSES, {"min_tokens": 7}, 0, id="a response knows no min_tokens"),
    pytest.param(MESSAGES, {"ignore_eos": True, "min_tokens": 7, "max_tokens": 9}, 0, id="Anthropic's messages know neither"),
]


@pytest.mark.parametrize(("endpoint", "more", "min_tokens"), LEAST)
def test_the_least_number_of_output_tokens(endpoint: Endpoint, more: dict[str, Any], min_tokens: int) -> None:
    assert described(endpoint, {**BODIES[endpoint], **more}).min_tokens == min_tokens


@pytest.mark.parametrize(("endpoint", "more", "max_tokens"), LIMITS)
def test_the_clients_limit_on_output_tokens(endpoint: Endpoint, more: dict[str, Any], max_tokens: int) -> None:
    assert described(endpoint, {**BODIES[endpoint], **more}).max_tokens == max_tokens


@pytest.mark.parametrize(
    ("body", "n"),
    [
        pytest.param({"prompt": "a"}, 1, id="one"),
        pytest.param({"prompt": "a", "n": 3}, 3, id="samples"),
        pytest.param({"prompt": ["a", "b"], "n": 3}, 6, id="samples of several prompts"),
        pytest.param({"prompt": "a", "n": "many"}, 1, id="nonsense"),
        pytest.param({"prompt": ["a", "b"], "n": 4294967295}, MAX_SAMPLES, id="more than any message can carry (L2)"),
    ],
)
def test_engine_requests_that_a_job_becomes(body: dict[str, Any], n: int) -> None:
    assert described(COMPLETIONS, body).n == n


@pytest.mark.parametrize(
    ("endpoint", "more", "structured"),
    [
        pytest.param(CHAT, {}, False, id="plain"),
        pytest.param(CHAT, {"response_format": {"type": "text"}}, False, id="text format"),
        pytest.param(CHAT, {"response_format": {"type": "json_object"}}, True, id="JSON"),
        pytest.param(CHAT, {"tools": [{"type": "function"}]}, True, id="tools"),
        pytest.param(CHAT, {"tools": [{"type": "function"}], "tool_choice": "none"}, False, id="tools that may not be called"),
        pytest.param(COMPLETIONS, {"structured_outputs": {"regex": "a+"}}, True, id="a regular expression"),
        pytest.param(MESSAGES, {"tools": [{"name": "f"}], "tool_choice": {"type": "none"}}, False, id="Anthropic's way to say no tools"),
        pytest.param(RESPONSES, {"text": {"format": {"type": "json_schema"}}}, True, id="a response's schema"),
    ],
)
def test_structured_output_is_seen(endpoint: Endpoint, more: dict[str, Any], structured: bool) -> None:
    assert described(endpoint, {**BODIES[endpoint], **more}).structured is structured


class Message(dict[str, str]):
    """A message that counts how often one of them is asked for anything."""

    asked = 0

    def get(self, key: str, default: Any = None) -> Any:
        Message.asked += 1
        return super().get(key, default)


@pytest.mark.parametrize(
    "endpoint",
    [pytest.param(CHAT, id="chat completions"), pytest.param(RESPONSES, id="responses")],
)
def test_of_a_million_messages_the_newest_are_looked_at(endpoint: Endpoint) -> None:
    Message.asked = 0
    messages = [Message(role="user", content="four")] * 1_000_000
    key = "messages" if endpoint is CHAT else "input"
    seen = described(endpoint, {"model": "tiny", key: messages})
    assert (seen.prompt, seen.turns, seen.prompt_chars, seen.conversation_now) == ("four", 1_000_000, 4_000_000, "")
    assert Message.asked <= 3 * MAX_MESSAGES


def test_a_first_turn_has_no_conversation() -> None:
    assert described(CHAT, chat(("system", "be brief"), ("user", "hi"))).conversation == ""


def test_the_same_history_gives_the_same_conversation_whatever_is_asked_next() -> None:
    history = (("user", "a"), ("assistant", "b"))
    one, other = (described(CHAT, chat(*history, ("user", text))).conversation for text in ("c", "d"))
    assert one == other != ""


FIRST = chat(("user", "a"))
SECOND = chat(("user", "a"), ("assistant", "b"), ("user", "c"))
TOOLS = chat(("user", "a"), ("assistant", "calling"), ("tool", "42"))


@pytest.mark.parametrize("following", [pytest.param(SECOND, id="an answer and a question"), pytest.param(TOOLS, id="a tool's result")])
def test_a_turn_names_the_conversation_as_the_turn_before_did(following: dict[str, object]) -> None:
    assert described(CHAT, following).conversation_previous == described(CHAT, FIRST).conversation_now != ""


def test_a_first_turn_has_nothing_before_it() -> None:
    assert described(CHAT, FIRST).conversation_previous == ""


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        pytest.param(0.7, 0.7, id="a number"),
        pytest.param(0, 0.0, id="zero is a temperature"),
        pytest.param(None, None, id="not set"),
        pytest.param("hot", None, id="no number"),
        pytest.param(-1, None, id="below zero"),
    ],
)
def test_the_temperature_is_what_the_client_set(given: object, seen: float | None) -> None:
    assert described(CHAT, {**FIRST, "temperature": given}).temperature == seen


def test_a_previous_response_names_the_conversation() -> None:
    first, second = (described(RESPONSES, {"input": "hi", **more}) for more in ({}, {"previous_response_id": "resp_1"}))
    assert first.conversation == ""
    assert (second.conversation != "", second.turns) == (True, 2)


# A shared machine may be slow; that is no finding.
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(st.text(alphabet=st.characters(), max_size=MAX_PROMPT_BYTES + 50))
def test_the_prompt_is_a_valid_utf8_prefix_of_at_most_16_kib(text: str) -> None:
    prompt = described(COMPLETIONS, {"prompt": text}).prompt
    assert len(prompt.encode("utf-8")) <= MAX_PROMPT_BYTES
    assert text.encode("utf-8", "replace").decode("utf-8").startswith(prompt)


def test_of_a_models_name_of_a_megabyte_the_sidecar_hears_the_beginning() -> None:
    assert described(COMPLETIONS, {"model": "x" * 1_100_000, "prompt": "hello"}).model == "x" * 1024


def test_a_lone_surrogate_does_not_reach_protobuf() -> None:
    body = json.loads('{"model": "\\ud800", "prompt": "\\ud800"}')
    description = described(COMPLETIONS, body)
    assert (description.model, description.prompt) == ("?", "?")


surrogates = st.text(alphabet=st.characters(categories=["Cs", "L", "Nd"]), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | surrogates,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type", "text"]), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "model",
    "messages",
    "prompt",
    "input",
    "max_tokens",
    "n",
    "stream",
    "tools",
    "text",
    "vllm_xargs",
    "response_format",
    "instructions",
    "max_output_tokens",
    "temperature",
    "tool_choice",
    "system",
    "previous_response_id",
    "structured_outputs",
    "ignore_eos",
    "min_tokens",
    "stop",
]


@RELAXED
@given(st.sampled_from(Endpoint), st.dictionaries(st.sampled_from(KEYS), json_values) | json_values)
def test_no_json_breaks_the_description_or_the_message_to_the_sidecar(endpoint: Endpoint, body: Any) -> None:
    description = describe(endpoint, body)
    assert 1 <= description.n <= MAX_SAMPLES
    assert request_message(Ask("job", description)).n == description.n


def test_a_role_nested_deeper_than_the_stack_does_not_break_it() -> None:
    role: list[Any] = []
    for _ in range(100_000):
        role = [role]
    assert described(CHAT, {"messages": [{"role": role, "content": "hi"}]}).prompt == "hi"
