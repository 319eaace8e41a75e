"""`spec.observability` as a value: what the pods report to the outside. Part of the `Spec` in spec.py, and pure as it is."""

from typing import Annotated, Literal

from pydantic import Field

from alise_operator.spec_types import Quantity, SpecModel
from alise_operator.spec_words import COLLECTOR


class Traces(SpecModel):
    endpoint: Annotated[str, Field(max_length=1024, pattern=COLLECTOR)]
    """Address of the OpenTelemetry collector, with its port, for example http://collector.observability:4317. With protocol http/protobuf,
    it has a path as well, for example http://collector.observability:4318/v1/traces. With https, the certificate must be one that the
    engine's image trusts."""
    protocol: Literal["grpc", "http/protobuf"] = "grpc"
    """Protocol in which traces are sent (OTLP)."""
    sampling_ratio: Quantity = "1"
    """Share of the requests that are traced, from 0 to 1. 50m is 5%. A client that sends a W3C trace context decides for its own
    request: it is not traced without the sampled flag, and traced with it, for at most 10 requests per second and replica beyond this
    share."""


class Observability(SpecModel):
    traces: Traces | None = None
    """Collector to which the replicas send traces of requests. Traces hold no text of prompts and answers. Default: no traces."""
