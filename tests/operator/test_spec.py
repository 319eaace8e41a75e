"""Fields of a spec: types, patterns and bounds."""

from typing import Any

import pytest

from tests.operator.builders import raw_spec
from tests.operator.complaints import KEYS, complaint, engine


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        pytest.param({}, ["spec.model: is required"], id="no model"),
        pytest.param(raw_spec(model={"uri": ""}), ["spec.model.uri: must not be empty"], id="an empty uri"),
        pytest.param(
            raw_spec(model={"uri": "--help"}),
            ["spec.model.uri: '--help' is not a single word; remove spaces, and a dash at the"],
            id="a uri that reads as a flag",
        ),
        pytest.param(
            raw_spec(model={"uri": "a/b", "servedName": "tiny gpt-3.5-turbo"}),
            [
                "spec.model.servedName: 'tiny gpt-3.5-turbo' is not a single word; a name has no spaces",
                "further names go into spec.model.aliases",
            ],
            id="two names in one (A17)",
        ),
        pytest.param(
            raw_spec(model={"uri": "a/b", "aliases": ["--port"]}),
            ["spec.model.aliases[0]: '--port' is not a single word; a name has no spaces and does not begin with a dash"],
            id="an alias that reads as a flag",
        ),
        pytest.param(
            raw_spec(scheduling={"policy": "lifo"}),
            ["spec.scheduling.policy: 'lifo' is not allowed; use one of 'boost', 'alise', 'gittins', 'sjf', 'fcfs'"],
            id="an unknown policy",
        ),
        pytest.param(raw_spec(replicas=-1), ["spec.replicas: -1 is below the smallest allowed value 0"], id="negative replicas"),
        pytest.param(raw_spec(replicas=10**6), ["spec.replicas: 1000000 is above the largest allowed value 10000"], id="too many replicas"),
        pytest.param(raw_spec(replicas="two"), ["spec.replicas: 'two' is not allowed; it must be a valid integer"], id="text for replicas"),
        pytest.param(
            raw_spec(kvOffload={"hostMemory": "2 GB"}), ["spec.kvOffload.hostMemory: '2 GB' is not a quantity"], id="a bad quantity"
        ),
        pytest.param(raw_spec(kvOffload={"hostMemory": "-1Gi"}), ["'-1Gi' is not a quantity"], id="a negative quantity"),
        pytest.param(
            raw_spec(kvOffload={"hostMemory": "9" * 65}),
            ["spec.kvOffload.hostMemory: is longer than 64 characters"],
            id="a quantity of many digits",
        ),
        pytest.param(
            raw_spec(route={"type": "Ingress", "hosts": ["a.b"] * 17}), ["spec.route.hosts: has more than 16 items"], id="many hosts"
        ),
        pytest.param(raw_spec(kvOffload={"hostMemory": -1}), ["'-1' is not a quantity"], id="a negative number"),
        pytest.param(raw_spec(replicas="2"), ["spec.replicas: '2' is not allowed"], id="a number as a text"),
        pytest.param(raw_spec(suspend="yes"), ["spec.suspend: 'yes' is not allowed"], id="a word for true"),
        pytest.param(
            raw_spec(model={"uri": "a\x0bb"}), ["spec.model.uri: 'a\\x0bb' is not a single word"], id="a control character in a uri"
        ),
        pytest.param(raw_spec(colour="blue"), ["spec.colour: is not a field of this version"], id="an unknown field"),
        pytest.param(
            raw_spec(route={"type": "Both"}),
            ["spec.route.type: 'Both' is not allowed", "'HTTPRoute', 'Ingress', 'None'"],
            id="an unknown route type",
        ),
        pytest.param(
            raw_spec(route={"type": "Ingress", "hosts": ["A_b"]}),
            ["spec.route.hosts[0]: 'A_b' is not a host name; names consist of lower-case letters"],
            id="a bad host",
        ),
        pytest.param(
            engine(rollout="slow"), ["spec.engine.rollout: 'slow' is not allowed; use one of 'surge', 'replace'"], id="an unknown rollout"
        ),
        pytest.param(
            raw_spec(scheduling={"classes": [{"name": "a\tb"}]}),
            ["spec.scheduling.classes[0].name: 'a\\tb' cannot be sent in a header; remove control characters"],
            id="a control character in the name of a class",
        ),
        pytest.param(raw_spec(scheduling={"classes": [{"name": " a"}]}), ["' a' cannot be sent in a header"], id="a blank before a class"),
        pytest.param(raw_spec(scheduling={"classes": [{"name": "a "}]}), ["'a ' cannot be sent in a header"], id="a blank after a class"),
        pytest.param(raw_spec(scheduling={"classes": [{"name": "a,b"}]}), ["'a,b' cannot be sent in a header"], id="a comma in a class"),
        pytest.param(
            raw_spec(auth=KEYS | {"tenants": [{"name": "team a", "class": "gold"}]}, scheduling={"classes": [{"name": "gold"}]}),
            ["spec.auth.tenants[0].name: 'team a' is not the name of an entry in a Secret"],
            id="a tenant that cannot be an entry of a Secret",
        ),
        pytest.param(
            raw_spec(auth=KEYS | {"tenants": [{"name": ".a", "class": "gold"}]}, scheduling={"classes": [{"name": "gold"}]}),
            ["spec.auth.tenants[0].name: '.a' is not the name of an entry in a Secret"],
            id="a tenant whose entry is skipped",
        ),
        pytest.param(raw_spec(auth={}), ["spec.auth.secretRef: is required"], id="API keys from nowhere"),
        pytest.param(
            raw_spec(admission={"bodySeconds": 0}), ["spec.admission.bodySeconds: 0 is below the smallest allowed value 1"], id="no time"
        ),
        pytest.param(
            raw_spec(admission={"bodySeconds": 3601}), ["3601 is above the largest allowed value 3600"], id="more than an hour for a body"
        ),
        pytest.param(raw_spec(drainSeconds=-5), ["spec.drainSeconds: -5 is below"], id="a negative drain"),
        pytest.param(raw_spec(podTemplate="x"), ["spec.podTemplate: 'x' is not allowed"], id="text for the pod template"),
    ],
)
def test_a_bad_spec_is_refused_with_field_value_and_what_is_allowed(raw: dict[str, Any], said: list[str]) -> None:
    message = complaint(raw)
    for part in said:
        assert part in message


def test_all_wrong_fields_are_named_at_once() -> None:
    message = complaint(raw_spec(replicas=-1, drainSeconds=-1, suspend="perhaps"))
    assert [field for field in ("spec.replicas", "spec.drainSeconds", "spec.suspend") if field in message] == [
        "spec.replicas",
        "spec.drainSeconds",
        "spec.suspend",
    ]


def test_a_long_name_of_a_field_leaves_room_for_what_is_wrong_with_it() -> None:
    message = complaint(raw_spec(**{"x\x1b" * 10_000: 1}, replicas=-1))
    assert "spec.replicas: -1 is below the smallest allowed value 0" in message
    assert "is not a field of this version" in message
    assert len(message) < 1000
    assert message.isprintable()
