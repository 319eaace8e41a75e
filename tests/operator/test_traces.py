"""spec.observability.traces: the engine's flags and variables, the way to the collector, and what is refused."""

import argparse
from typing import Any

import pytest

from alise_contract.names import TRACES_RATIO_ENV
from alise_engine.api import variables
from alise_operator.children.pod import engine_args
from alise_operator.children.traces import trace_egress
from alise_operator.errors import InvalidSpec
from alise_operator.rules import check
from tests.operator.builders import OWNER, make_spec
from tests.operator.built import build, environment

GRPC = "http://collector.observability:4317"


def traced(endpoint: str = GRPC, **more: Any) -> dict[str, Any]:
    return {"observability": {"traces": {"endpoint": endpoint, **more}}}


def problems(**changes: Any) -> list[tuple[str, str]]:
    try:
        check(make_spec(**changes), "tiny")
    except InvalidSpec as error:
        return [(problem.field, problem.text) for problem in error.problems]
    return []


def test_the_engine_gets_the_collector_as_vllms_flag_before_the_users_flags() -> None:
    args = engine_args(make_spec(**traced(), engine={"device": "cpu", "args": ["--seed", "7"]}))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--otlp-traces-endpoint")
    given, _ = parser.parse_known_args(args)
    assert (given.otlp_traces_endpoint, args[-2:]) == (GRPC, ["--seed", "7"])


def test_the_engine_understands_the_ratio_and_its_traces_name_the_pod() -> None:
    environ = environment("engine", **traced(samplingRatio="50m", protocol="grpc"))
    assert variables.TRACES_RATIO.read(environ) == 0.05
    assert (environ["OTEL_SERVICE_NAME"], environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"]) == (OWNER.name, "grpc")
    attributes = dict(pair.split("=") for pair in environ["OTEL_RESOURCE_ATTRIBUTES"].split(","))
    assert (attributes["k8s.namespace.name"], attributes["k8s.pod.name"]) == (OWNER.namespace, "$(OTEL_RESOURCE_POD_NAME)")


def test_the_users_own_name_of_the_service_stays() -> None:
    own = {"name": "OTEL_SERVICE_NAME", "value": "llm"}
    assert environment("engine", **traced(), engine={"device": "cpu", "env": [own]})["OTEL_SERVICE_NAME"] == "llm"


def test_without_traces_a_pod_has_nothing_of_them() -> None:
    assert "--otlp-traces-endpoint" not in engine_args(make_spec())
    assert not {name for name in environment("engine") if name.startswith("OTEL_") or name == TRACES_RATIO_ENV}


@pytest.mark.parametrize(
    ("endpoint", "peer", "port"),
    [
        pytest.param(GRPC, {"namespace": "observability"}, 4317, id="a Service of another namespace"),
        pytest.param("http://collector:4317", {"namespace": OWNER.namespace}, 4317, id="a Service of the same namespace"),
        pytest.param("http://otel.obs.svc.cluster.local:4318", {"namespace": "obs"}, 4318, id="a Service by its full name"),
        pytest.param("http://10.1.2.3:4317", {"cidr": "10.1.2.3/32"}, 4317, id="an address"),
        pytest.param("http://[fd00::7]:4317", {"cidr": "fd00::7/128"}, 4317, id="an address of IPv6"),
        pytest.param("https://otlp.example.com:443", None, 443, id="a host outside"),
    ],
)
def test_a_policy_that_limits_egress_lets_traces_through_where_it_can_name_the_collector(
    endpoint: str, peer: dict[str, str] | None, port: int
) -> None:
    rules = trace_egress(make_spec(**traced(endpoint)), OWNER)
    if peer is None:
        assert rules == []
        return
    [rule] = rules
    [to] = rule["to"]
    namespace = to.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    assert peer in ({"namespace": namespace}, to.get("ipBlock"))
    assert rule["ports"] == [{"protocol": "TCP", "port": port}]


def test_the_way_to_the_collector_is_in_the_policy_only_if_it_limits_egress() -> None:
    limited = build(**traced(), networkPolicy={"egress": []})["NetworkPolicy"]["spec"]
    assert [rule["ports"][0]["port"] for rule in limited["egress"]] == [53, 4317]
    assert "egress" not in build(**traced())["NetworkPolicy"]["spec"]


REFUSED = [
    pytest.param(
        traced("http://collector:4317/v1/traces"),
        "spec.observability.traces.endpoint",
        "remove the path, or set protocol to http/protobuf",
        id="a path with gRPC",
    ),
    pytest.param(
        traced("http://collector:4318", protocol="http/protobuf"),
        "spec.observability.traces.endpoint",
        "add the collector's path, usually /v1/traces",
        id="no path with HTTP",
    ),
    pytest.param(
        traced("http://collector:65536"),
        "spec.observability.traces.endpoint",
        "correct the host or the port",
        id="a port that there is not",
    ),
    pytest.param(traced("http://collector:0"), "spec.observability.traces.endpoint", "has port 0", id="port 0"),
    pytest.param(
        traced("http://[1::2::3]:4317"), "spec.observability.traces.endpoint", "correct the host or the port", id="no address of IPv6"
    ),
    pytest.param(traced(samplingRatio="1.5"), "spec.observability.traces.samplingRatio", "'1.5' is not between 0 and 1", id="a ratio"),
    pytest.param(
        traced() | {"engine": {"device": "cpu", "args": ["--disable-log-stats"]}},
        "spec.engine.args[0]",
        "cannot be combined with spec.observability.traces",
        id="no statistics to make traces of",
    ),
    pytest.param(
        {"engine": {"device": "cpu", "args": ["--otlp-traces-endpoint", GRPC]}},
        "spec.engine.args[0]",
        "use spec.observability.traces.endpoint",
        id="the flag instead of the field",
    ),
    pytest.param(
        traced() | {"engine": {"device": "cpu", "env": [{"name": "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "value": "grpc"}]}},
        "spec.engine.env[0]",
        "use spec.observability.traces.protocol",
        id="the variable instead of the field",
    ),
]


@pytest.mark.parametrize(("changes", "field", "way_out"), REFUSED)
def test_a_problem_names_its_field_and_the_way_out(changes: dict[str, Any], field: str, way_out: str) -> None:
    [(found, text)] = problems(**changes)
    assert found == field
    assert way_out in text


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param("collector:4317", id="no scheme"),
        pytest.param("http://collector", id="no port"),
        pytest.param("http://user:secret@collector:4317", id="a password"),
        pytest.param("http://collector:4317/$(HF_TOKEN)", id="a variable that Kubernetes would insert"),
        pytest.param("grpc://collector:4317", id="another scheme"),
        pytest.param("http://..:4317", id="no host"),
        pytest.param("http://Collector:4317", id="capitals, which no Service has"),
        pytest.param("http://collector:4317 --port 1", id="a second word"),
    ],
)
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        make_spec(**traced(endpoint))
    [problem] = caught.value.problems
    assert (problem.field, "is not the address of a collector" in problem.text) == ("spec.observability.traces.endpoint", True)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(traced(), id="gRPC"),
        pytest.param(traced("https://otlp.example.com:443/v1/traces", protocol="http/protobuf", samplingRatio="0"), id="HTTP"),
        pytest.param({"engine": {"device": "cpu", "args": ["--disable-log-stats"]}}, id="no statistics and no traces"),
    ],
)
def test_what_is_allowed_is_not_refused(changes: dict[str, Any]) -> None:
    assert problems(**changes) == []
