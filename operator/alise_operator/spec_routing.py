"""`spec.routing` as a value: which replica a request goes to. Part of the `Spec` in spec.py, and pure as it is.

picker.py, inference_pool.py and network_policy.py in children/ follow it.
"""

from typing import Annotated

from pydantic import Field

from alise_operator.spec_types import Opaque, SpecModel


class Hold(SpecModel):
    max_requests: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Maximum number of requests that are held at a time. Further requests are answered with 503 and Retry-After at once. 0 holds none."""
    seconds: Annotated[int, Field(ge=1, le=3600)] = 300
    """Time, in seconds, for which one request is held. After it, the request is answered with 503 and Retry-After."""


class EndpointPicker(SpecModel):
    hold: Hold = Field(default_factory=Hold)
    """Requests that come while no replica is ready, for example while the resource is scaled to zero. Those to a route that generates wait
    in the picker, and are answered once a replica is ready. The others are answered with 503 at once."""
    from_: Annotated[list[Opaque], Field(alias="from", max_length=64)] = Field(default_factory=list)
    """Peers that may connect to the picker, as `from` of a Kubernetes NetworkPolicy: the pods of the gateway, and Prometheus. The operator
    is always allowed. Used only if spec.networkPolicy.enabled is true. Default: all peers."""


class Routing(SpecModel):
    endpoint_picker: EndpointPicker | None = None
    """Endpoint picker, which sends each request to the replica in which it would wait least, by its own predicted length and rank. The
    gateway asks it over Envoy's external processing and balances by itself while it does not answer. Default: no picker, so the gateway's
    own balancing applies."""
    lengths_from: Annotated[list[Opaque], Field(max_length=64)] = Field(default_factory=list)
    """Further peers that may ask the replicas for predicted lengths and for their load over gRPC (port 9401), as `from` of a Kubernetes
    NetworkPolicy, for example the endpoint picker of another project. Default: none, so only the resource's own picker may."""
