"""No secret and no prompt gets into a support bundle: written as a person would, in fields, flags, URLs and logs."""

import json

import pytest

from kubectl_alise.redact import REDACTED, redacted_log, redacted_object, redacted_text

OBJECTS = [
    pytest.param({"env": [{"name": "HF_TOKEN", "value": "SECRET"}]}, id="a variable with a token"),
    pytest.param({"env": [{"name": "DB_PASSWORD", "value": "SECRET"}]}, id="a variable with a password"),
    pytest.param({"env": [{"name": "ALISE_HISTORY_DSN", "value": "host=db password=SECRET"}]}, id="a variable with a DSN"),
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
