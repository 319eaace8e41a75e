"""The rules of `spec.observability.traces` that join several fields. Pure; rules.py calls `trace_problems()`."""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from alise_contract.names import TRACES_RATIO_ENV
from alise_contract.quantities import parse_quantity
from alise_operator.errors import Problem
from alise_operator.flags import given_flags
from alise_operator.sentences import quote
from alise_operator.spec import Spec

ENDPOINT_ENV: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL_ENV: Final = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
POD_NAME_ENV: Final = "OTEL_RESOURCE_POD_NAME"
_FIELD: Final = "spec.observability.traces"
# Variables that only these fields may set.
TRACE_ENV: Final[Mapping[str, str]] = {
    TRACES_RATIO_ENV: f"{_FIELD}.samplingRatio",
    ENDPOINT_ENV: f"{_FIELD}.endpoint",
    PROTOCOL_ENV: f"{_FIELD}.protocol",
    POD_NAME_ENV: "",
}


def trace_problems(spec: Spec) -> Iterator[Problem]:
    traces = spec.observability.traces
    if traces is None:
        return
    try:
        address = urlsplit(traces.endpoint)
        path, has_port = address.path, bool(address.port)
        if traces.endpoint.partition("://")[2].startswith("["):
            # Older versions of Python take anything between the brackets.
            ipaddress.ip_address(address.hostname or "")
    except ValueError as error:
        yield Problem(f"{_FIELD}.endpoint", f"{quote(traces.endpoint)} is not an address: {error}; correct the host or the port")
        return
    if not has_port:
        yield Problem(f"{_FIELD}.endpoint", f"{quote(traces.endpoint)} has port 0; use the collector's port, usually 4317 or 4318")
    if traces.protocol == "grpc" and path not in ("", "/"):
        yield Problem(
            f"{_FIELD}.endpoint",
            f"{quote(traces.endpoint)} has a path, which protocol grpc does not use; remove the path, or set protocol to http/protobuf",
        )
    if traces.protocol == "http/protobuf" and path in ("", "/"):
        yield Problem(
            f"{_FIELD}.endpoint",
            f"{quote(traces.endpoint)} has no path, which protocol http/protobuf needs; add the collector's path, usually /v1/traces",
        )
    if not 0 <= parse_quantity(traces.sampling_ratio) <= 1:
        yield Problem(f"{_FIELD}.samplingRatio", f"{traces.sampling_ratio!r} is not between 0 and 1")
    for index, name, _ in given_flags(spec.engine.args):
        if name in ("disable-log-stats", "log-stats"):
            yield Problem(
                f"spec.engine.args[{index}]",
                f"--{name} cannot be combined with {_FIELD}, because vLLM makes its traces of these statistics; remove one of them",
            )
