"""API keys from a Secret: who gets in, as which class, and how keys change while the pod serves."""

import json
import time
from typing import Any

import pytest
from openai import APIError, AuthenticationError, OpenAI

from alise_contract.names import CLASS_RESPONSE_HEADER, ENGINE_PORT, OBJECTIVE_HEADERS, STATUS_PATH
from tests.cluster.resource import Resource, wait_until
from tests.e2e.keyed.conftest import KEY_A, KEY_B, NAME, SECRET, bearer
from tests.e2e.support import MODEL

pytestmark = pytest.mark.e2e

NEXT_KEY_A = "next-key-of-team-a"
# The kubelet looks at a pod's Secrets once a minute, or when something about the pod changes; on a busy node some seconds later.
SECRET_SECONDS = 180.0
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Who am I?"}], "max_tokens": 2}
# Method, path and body of what works, changes something or says what is served.
GUARDED: dict[str, Any] = {
    "GET /v1/models": None,
    "POST /v1/chat/completions": CHAT,
    "POST /invocations": CHAT,
    "POST /tokenize": {"model": MODEL, "prompt": "Who am I?"},
    "GET /metrics": None,
}
OPEN = {"GET /health": None, f"GET {STATUS_PATH}": None}
# Asks the engine from inside the pod, because the ingress leads to /v1 alone: [route, body, headers] in, [status, headers] out.
ASK = """
import json, urllib.error, urllib.request
answers = []
for route, body, headers in json.loads(WANTED):
    method, path = route.split()
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **headers}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(BASE + path, data, sent, method=method), timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    answers.append([answer.status, {name.lower(): value for name, value in answer.headers.items()}])
print(json.dumps(answers))
"""

Answer = tuple[int, dict[str, str]]


def ask(resource: Resource, *wanted: tuple[str, Any, dict[str, str]]) -> list[Answer]:
    """Status and headers of each request."""
    given = f"WANTED, BASE = {json.dumps(wanted)!r}, 'http://127.0.0.1:{ENGINE_PORT}'"
    answers = json.loads(resource.run_in_scheduler(resource.only_pod(), given + ASK, timeout_seconds=120))
    return [(status, headers) for status, headers in answers]


def statuses(resource: Resource, routes: dict[str, Any], **headers: str) -> dict[str, int]:
    answers = ask(resource, *((route, body, headers) for route, body in routes.items()))
    return {route: status for route, (status, _) in zip(routes, answers, strict=True)}


@pytest.mark.parametrize("headers", [{}, bearer("unknown-key")], ids=["no key", "an unknown key"])
def test_without_a_key_of_a_tenant_every_guarded_route_is_401(keyed: Resource, headers: dict[str, str]) -> None:
    assert statuses(keyed, GUARDED, **headers) == dict.fromkeys(GUARDED, 401)


@pytest.mark.parametrize("headers", [bearer(KEY_A), {"x-api-key": KEY_B}], ids=["a bearer token", "x-api-key"])
def test_with_a_key_every_guarded_route_answers(keyed: Resource, headers: dict[str, str]) -> None:
    assert statuses(keyed, GUARDED, **headers) == dict.fromkeys(GUARDED, 200)


def test_probes_and_the_operator_need_no_key(keyed: Resource) -> None:
    assert statuses(keyed, OPEN) == dict.fromkeys(OPEN, 200)


def test_the_openai_clients_api_key_is_the_tenants(keyed: Resource, client: OpenAI) -> None:
    host = {"Host": f"{NAME}.alise.test"}
    allowed = client.with_options(api_key=KEY_A, default_headers=host)
    # The gateway may have heard of the resource a moment ago.
    wait_until("the gateway's route", lambda: is_routed(allowed), 60)
    assert [model.id for model in allowed.models.list().data] == [MODEL]
    with pytest.raises(AuthenticationError):
        client.with_options(default_headers=host).models.list()


def is_routed(client: OpenAI) -> bool:
    try:
        return bool(client.models.list().data)
    except APIError:
        return False


def test_a_request_has_the_class_of_its_key_whatever_its_headers_say(keyed: Resource) -> None:
    asks_for_more = {OBJECTIVE_HEADERS[0]: "interactive"}
    answers = ask(
        keyed,
        ("POST /v1/chat/completions", CHAT, bearer(KEY_A)),
        ("POST /v1/chat/completions", CHAT, bearer(KEY_B)),
        ("POST /v1/chat/completions", CHAT, bearer(KEY_B) | asks_for_more),
    )
    assert [headers.get(CLASS_RESPONSE_HEADER) for _, headers in answers] == ["interactive", "batch", "batch"]


def test_keys_are_added_and_withdrawn_without_a_restart(keyed: Resource) -> None:
    pod = keyed.only_pod()
    models = {"GET /v1/models": None}

    def status(key: str) -> int:
        return statuses(keyed, models, **bearer(key))["GET /v1/models"]

    change_keys(keyed, {"team-a": f"{KEY_A}\n{NEXT_KEY_A}\n", "team-b": None})
    try:
        wait_until("the new key", lambda: status(NEXT_KEY_A) == 200, SECRET_SECONDS, every_seconds=3.0)
        assert (status(KEY_A), status(KEY_B)) == (200, 401)
        change_keys(keyed, {"team-a": NEXT_KEY_A})
        wait_until("the end of the old key", lambda: status(KEY_A) == 401, SECRET_SECONDS, every_seconds=3.0)
        assert status(NEXT_KEY_A) == 200
        assert (keyed.only_pod(), keyed.engine_restarts(pod)) == (pod, 0)
    finally:
        change_keys(keyed, {"team-a": KEY_A, "team-b": KEY_B})
        wait_until("the first keys again", lambda: (status(KEY_A), status(KEY_B)) == (200, 200), SECRET_SECONDS, every_seconds=3.0)


def change_keys(resource: Resource, keys: dict[str, str | None]) -> None:
    """Set these entries, None removes one, and make the kubelet look at the pod."""
    kept = {tenant: value for tenant, value in keys.items() if value is not None}
    removed = {tenant: None for tenant in keys if tenant not in kept}
    resource.kubectl("patch", "secret", SECRET, "--type=merge", "-p", json.dumps({"stringData": kept, "data": removed}))
    changed = str(time.time())
    resource.kubectl("annotate", "pod", resource.only_pod(), "--overwrite", f"example.com/keys-changed={changed}")
