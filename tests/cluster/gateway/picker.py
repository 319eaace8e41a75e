"""Envoy's configuration where a Service has an endpoint picker; pure. The same as docs/how-to/endpoint-picker.md shows.

A Service `tiny` has one if its namespace has a Service `tiny-picker` with a port `grpc`. `resources.py` calls it.
"""

from typing import Any

from alise_contract.names import PICKER_SUFFIX

Json = dict[str, Any]

FILTER = "envoy.filters.http.ext_proc"
HEADER, NAMESPACE = "x-gateway-destination-endpoint", "envoy.lb"
# A picker that takes longer is passed over. It may ask for more time, to hold a request, up to the second one.
MESSAGE_SECONDS, MAX_MESSAGE_TIMEOUT = 0.2, "3600s"
PORT = "grpc"
BUFFERED = "BUFFERED_PARTIAL"


def filter_config(message_seconds: float = MESSAGE_SECONDS) -> Json:
    """The HTTP filter, which is off except on routes that name a picker."""
    return {
        "name": FILTER,
        "disabled": True,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}},
            "failure_mode_allow": True,
            "message_timeout": f"{message_seconds}s",
            "max_message_timeout": MAX_MESSAGE_TIMEOUT,
            "processing_mode": _mode(BUFFERED),
            "metadata_options": {"receiving_namespaces": {"untyped": [NAMESPACE]}},
        },
    }


def per_route(cluster: str, body_mode: str) -> Json:
    """What a route has whose requests go to a picker."""
    return {
        FILTER: {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
            "overrides": {"grpc_service": {"envoy_grpc": {"cluster_name": cluster}}, "processing_mode": _mode(body_mode)},
        }
    }


def picked(cluster: Json) -> Json:
    """The cluster of a Service, balanced by the picker's word; without one by Envoy's own least requests."""
    own = cluster.pop("lb_policy")
    fallback = {
        "name": f"envoy.load_balancing_policies.{own.lower()}",
        "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.load_balancing_policies.{own.lower()}.v3.{_camel(own)}"},
    }
    override = {
        "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost",
        "override_host_sources": [{"metadata": {"key": NAMESPACE, "path": [{"key": HEADER}]}}],
        "fallback_policy": {"policies": [{"typed_extension_config": fallback}]},
    }
    extension = {"name": "envoy.load_balancing_policies.override_host", "typed_config": override}
    return {**cluster, "load_balancing_policy": {"policies": [{"typed_extension_config": extension}]}}


def picker_cluster(cluster: Json) -> Json:
    """The cluster of the picker's own Service: gRPC."""
    options = cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
    grpc = {"@type": options["@type"], "explicit_http_config": {"http2_protocol_options": {}}}
    return {**cluster, "connect_timeout": "0.2s", "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": grpc}}  # fmt: skip


def picker_of(service: str) -> str:
    """The name that the picker of a Service has."""
    return f"{service}{PICKER_SUFFIX}"


def _mode(body_mode: str) -> Json:
    skipped = dict.fromkeys(("response_header_mode", "response_trailer_mode"), "SKIP")
    trailers = "SEND" if body_mode == "FULL_DUPLEX_STREAMED" else "SKIP"
    return {"request_header_mode": "SEND", "request_body_mode": body_mode, "request_trailer_mode": trailers, **skipped}


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
