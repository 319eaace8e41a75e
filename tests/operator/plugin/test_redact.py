"""No secret and no prompt gets into a support bundle: written as a person would, in fields, flags, URLs and logs."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_alise.redact import REDACTED, redacted_log, redacted_object, redacted_text

OBJECTS = [
    pytest.param({"env": [{"name": "HF_TOKEN", "value": "SECRET"}]}, id="a variable with a token"),
    pytest.param({"env": [{"name": "DB_PASSWORD", "value": "SECRET"}]}, id="a variable with a password"),
    pytest.param({"env": [{"name": "ALISE_HISTORY_DSN", "value": "host=db password=SECRET"}]}, id="a variable with a DSN"),
    pytest.param({"env": [{"name": "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "value": "x-team=SECRET"}]}, id="headers for a collector"),
    pytest.param({"env": [{"name": "OTEL_EXPORTER_OTLP_HEADERS", "value": "x-team=SECRET"}]}, id="headers for all collectors"),
    pytest.param({"args": ["--api-key", "SECRET"]}, id="a flag and its value"),
    pytest.param({"args": ["--api-key=SECRET"]}, id="a flag with its value"),
    pytest.param({"value": "postgresql://alise:SECRET@db/alise"}, id="a URL with a password"),
    pytest.param({"headers": "Authorization: Bearer SECRETSECRET"}, id="a header"),
    pytest.param({"spec": {"apiKey": "SECRET"}}, id="a field that is called so"),
    pytest.param(
        {"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": '{"env": "SECRET"}'}}},
        id="a copy",
    ),
]


@pytest.mark.parametrize("found", OBJECTS)
def test_a_secret_in_an_object_is_taken_out(found: dict[str, object]) -> None:
    assert "SECRET" not in json.dumps(redacted_object(found))


TEXTS = [
    pytest.param("https://{}@github.com/team/models", id="a URL with a token alone"),
    pytest.param("https://x-access-token:{}@github.com/team/models", id="a URL with a user and a token"),
    pytest.param("postgresql://alise:{}@db:5432/alise", id="a URL with a password"),
    pytest.param("http://a.test/v1,https://u:{}@b.test", id="the second URL of a word"),
    pytest.param("vllm serve --api_key={} --port 1", id="a flag with underscores"),
    pytest.param("vllm serve --api_key {} --port 1", id="a flag with underscores and a space"),
    pytest.param("vllm serve --api-key {} --port 1", id="a flag with a space"),
    pytest.param("vllm serve --api-key first {}", id="the second value of a flag"),
    pytest.param("vllm serve --HF-TOKEN={}", id="capitals"),
    pytest.param("export HF_TOKEN={}; vllm serve", id="a shell's variable"),
    pytest.param("host=db password={} user=alise", id="a connection string"),
    pytest.param("non-default args: {{'api_key': ['{}'], 'port': 1}}", id="vLLM's log of its arguments"),
    pytest.param('{{"hf_token": "{}", "port": 1}}', id="JSON"),
    pytest.param('{{\\"hf_token\\": \\"{}\\"}}', id="JSON in JSON"),
    pytest.param("apiKey: {}", id="YAML"),
    pytest.param("Authorization: Basic {}", id="a header of the kind Basic"),
    pytest.param("x-api-key: {}", id="Anthropic's header"),
    pytest.param("GET /v1/models?api_key={} 200", id="a query"),
]
LISTS: list[Any] = [
    pytest.param(lambda secret: ["--api_key", secret], id="a flag with underscores"),
    pytest.param(lambda secret: [f"--api_key={secret}"], id="the same with its value"),
    pytest.param(lambda secret: ["--api-key", secret, secret, "--port", "1"], id="several values"),
    pytest.param(lambda secret: ["--ssl_keyfile_password", secret], id="another flag"),
    pytest.param(lambda secret: ["sh", "-c", f"vllm serve --api-key {secret}"], id="a shell's line"),
    pytest.param(lambda secret: ["--speculative-config", json.dumps({"token": secret})], id="JSON in a flag"),
]
# The ends show what is left of it. A URL's user and a token have no slash.
SECRETS = st.text("abcXYZ019@:%!=+,;&#?.~_-", max_size=12).map("Zq9{}9qZ".format)
PASSWORDS = st.text("abcXYZ019@:%!=+,;&#?.~_-/", max_size=12).map("Zq9{}9qZ".format)


def left(text: str) -> list[str]:
    return [end for end in ("Zq9", "9qZ") if end in text]


@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=20)
@given(data=st.data())
def test_a_secret_of_any_characters_is_taken_out_of_a_text(text: str, data: st.DataObject) -> None:
    secret = data.draw(SECRETS if "{}@" in text and ":{}@" not in text else PASSWORDS)
    assert left(redacted_text(text.format(secret))) == []


@pytest.mark.parametrize("make", LISTS)
@settings(max_examples=20)
@given(secret=PASSWORDS)
def test_a_secret_of_any_characters_is_taken_out_of_arguments(make: Callable[[str], list[str]], secret: str) -> None:
    assert left(json.dumps(redacted_object({"args": make(secret)}))) == []


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve --max-num-batched-tokens 8192 --tokenizer Qwen/Qwen3-4B",
        "max_tokens=5, prompt_tokens: 10, seconds_per_token: 0.05",
        "oci://registry.example.com/models/qwen@sha256:0a1b",
        "https://chat.test/v1/models?limit=5",
        'secret "keys" not found',
        "password authentication failed for user alise",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted_text(text) == text


def test_a_password_of_digits_is_taken_out() -> None:
    assert redacted_object({"password": 12345, "max_tokens": 5}) == {"password": REDACTED, "max_tokens": 5}


def test_the_names_of_secrets_and_everything_else_stay() -> None:
    from_secret = {"name": "T", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    kept = {
        "secretRef": {"name": "keys", "key": "dsn"},
        "imagePullSecrets": [{"name": "pull"}],
        "secretName": "tls",
        "args": ["--max-num-seqs", "8"],
        "env": [{"name": "HF_HOME", "value": "/hub"}, from_secret],
        "max_tokens": 5,
        "url": "http://chat.test/v1",
    }
    assert redacted_object(kept) == kept


LOGS = [
    pytest.param("INFO 11-29 12:00:00 [logger.py:43] Received request 1: prompt: 'the PROMPT', x", id="vLLM's log of requests"),
    pytest.param("INFO 11-29 12:00:00 [logger.py:43] Received request 1: prompt: 'a\nthe PROMPT\nb'", id="a prompt of several lines"),
    pytest.param("INFO 11-29 12:00:00 response_body={b'the PROMPT'}", id="vLLM's log of answers"),
    pytest.param("DEBUG {'messages': [1], 'prompt': 'the PROMPT'}", id="a request that was logged as a dict"),
    pytest.param("postgresql://alise:PROMPT@db is down", id="a URL with a password"),
]


@pytest.mark.parametrize("log", LOGS)
def test_a_prompt_in_a_log_is_taken_out_and_the_next_line_stays(log: str) -> None:
    text = redacted_log(f"INFO before\n{log}\nINFO 11-29 12:00:01 after\n")
    assert "PROMPT" not in text
    assert "INFO before" in text
    assert "after" in text


def test_lines_of_the_schedulers_log_stay() -> None:
    line = '{"time": "2026-11-29T15:00:00+00:00", "message": "request ended", "prompt_tokens": 10, "request_id": "req-7"}'
    assert redacted_log(line) == line + "\n"


def test_keys_as_they_are_sent_are_taken_out_wherever_they_are() -> None:
    assert redacted_text("key sk-abcdefgh123 and hf_abcdefgh123") == f"key {REDACTED} and {REDACTED}"
