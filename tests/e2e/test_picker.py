"""The endpoint picker on the whole node: Envoy asks the picker's pod, which follows the replicas through the API server."""

import re
from collections.abc import Iterator
from operator import lt

import pytest
from openai import OpenAI

from alise_contract.names import ENGINE_LABEL, PICKER_HTTP_PORT, WAITING_PATH
from tests.cluster.resource import NAMESPACE, Resource, wait_until
from tests.e2e.clients import Asker
from tests.e2e.support import chat, tokens_in

pytestmark = pytest.mark.e2e

PICKER = "alise.dev/picker=tiny"
STREAM_SECONDS = 4.0


@pytest.fixture
def picked(tiny: Resource) -> Iterator[Resource]:
    tiny.patch({"routing": {"endpointPicker": {"hold": {"maxRequests": 5, "seconds": 600}}}})
    wait_until("the picker is ready", lambda: picker_is_ready(tiny), 120)
    tiny.wait_condition("Progressing", "False", 200)
    wait_until("the picker has fresh figures of the pod", lambda: metric(tiny, 'replicas{state="fresh"}') == 1, 60)
    yield tiny
    tiny.patch({"routing": None, "replicas": 1})
    wait_until("the picker is removed", lambda: "tiny-picker" not in tiny.kubectl("get", "deployments", "-o", "name"), 60)
    tiny.wait_condition("Progressing", "False", 200)
    tiny.wait_condition("Ready", "True", 200)


def picker_is_ready(tiny: Resource) -> bool:
    answer = tiny.kubectl("get", "pods", "-l", PICKER, "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}")
    return answer.strip() == "True"


def ask_picker(tiny: Resource, path: str) -> str:
    pod = tiny.kubectl("get", "pods", "-l", PICKER, "-o", "jsonpath={.items[0].metadata.name}").strip()
    return tiny.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{PICKER_HTTP_PORT}/proxy{path}")


def metric(tiny: Resource, name: str) -> float:
    found = re.search(rf"^alise_picker_{re.escape(name)} (\S+)$", ask_picker(tiny, "/metrics"), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_requests_are_placed_by_the_picker_and_none_fails_while_the_model_is_scaled_to_zero(picked: Resource, client: OpenAI) -> None:
    before = metric(picked, 'decisions_total{decision="least_wait"}')
    assert list(chat(client, "Who are you?", 3))
    assert metric(picked, 'decisions_total{decision="least_wait"}') == before + 1
    # Each asks again as soon as it has its answer: some streams are open when the pod has to go, and the next requests find no pod.
    tokens = tokens_in(client, STREAM_SECONDS)
    with Asker(client, tokens) as first, Asker(client, tokens) as second, Asker(client, tokens) as third:
        askers = (first, second, third)
        (pod,) = picked.ready_pods()
        wait_until("open streams", lambda: picked.requests_in_engine(pod) >= 2, 60)
        picked.patch({"replicas": 0})
        wait_until("every request is held", lambda: '"default/tiny": 3' in ask_picker(picked, WAITING_PATH), 120)
        wait_until("no pod is left", lambda: not picked.kubectl("get", "pods", "-l", f"{ENGINE_LABEL}=tiny", "-o", "name"), 60)
        answered = [asker.answers() for asker in askers]
        picked.patch({"replicas": 1})
        wait_until("the held requests are answered", lambda: all(map(lt, answered, [asker.answers() for asker in askers])), 300)
    assert [asker.failures for asker in askers] == [[], [], []]
