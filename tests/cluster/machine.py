"""What the machine's own network leaves free for the cluster: its address, and ranges for pods and Services. Decides; changes nothing.

`cluster.py` and `footprint.py` ask it.
"""

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass

from tests.cluster.commands import run
from tests.cluster.errors import UnsupportedMachine

Network = ipaddress.IPv4Network
# (pods, Services): the first pair that no route of the machine touches is taken.
CANDIDATES = tuple((Network(f"10.{second}.0.0/24"), Network(f"10.{second + 1}.0.0/16")) for second in range(42, 250, 16))


@dataclass(frozen=True, slots=True)
class Ranges:
    """Where pods and Services have their addresses."""

    pods: Network
    services: Network


def free_ranges(routes: Sequence[Network]) -> Ranges:
    """The first candidate pair that overlaps no route. Raises UnsupportedMachine when there is none."""
    for pods, services in CANDIDATES:
        if not any(route.overlaps(pods) or route.overlaps(services) for route in routes if route.prefixlen > 0):
            return Ranges(pods, services)
    raise UnsupportedMachine(
        f"every range tried for pods ({CANDIDATES[0][0]} … {CANDIDATES[-1][0]}) overlaps a route of this machine; see `ip route`"
    )


def routed_networks() -> list[Network]:
    """The destinations of the machine's IPv4 routes, the default route left out."""
    listed = json.loads(run(["ip", "-4", "-j", "route", "show", "table", "all"], timeout_seconds=10))
    found = []
    for route in listed:
        try:
            found.append(Network(route["dst"], strict=False))
        except ValueError:  # "default"
            continue
    return found


def node_address() -> str:
    """The machine's own IPv4 address: that of its default route, else the first that is not the loopback's (kubelet refuses that one).

    Raises UnsupportedMachine when there is none.
    """
    defaults = json.loads(run(["ip", "-4", "-j", "route", "show", "default"], timeout_seconds=10) or "[]")
    preferred = {route["dev"]: index for index, route in reversed(list(enumerate(defaults))) if "dev" in route}
    addresses = [
        (preferred.get(link["ifname"], len(defaults)), position, address["local"])
        for position, link in enumerate(json.loads(run(["ip", "-4", "-j", "address", "show", "up", "scope", "global"], timeout_seconds=10)))
        for address in link.get("addr_info", [])
        if "local" in address
    ]
    if not addresses:
        raise UnsupportedMachine("this machine has no IPv4 address except the loopback's; a node needs one (`ip address` shows none)")
    return str(min(addresses)[2])
