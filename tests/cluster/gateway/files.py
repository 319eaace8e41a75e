"""Envoy's configuration on disk: a bootstrap that never changes, and xDS files that Envoy takes up when they are moved into place.

Nothing restarts on an update, and no stream is cut: Envoy swaps routes and endpoints in memory. `envoy.py` calls it.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.gateway import picker
from tests.cluster.gateway.resources import ROUTE_CONFIG_NAME, Json, Resources

LISTENER = "ingress"
EXTENSION = "type.googleapis.com/envoy.extensions"


def bootstrap(folder: Path, port: int, picker_seconds: float = picker.MESSAGE_SECONDS) -> Json:
    """Envoy's static part: one listener on the loopback address (port 0: a free one), and where the rest is found."""
    manager = {
        "@type": f"{EXTENSION}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "stream_idle_timeout": "0s",
        "request_timeout": "0s",
        "rds": {"route_config_name": ROUTE_CONFIG_NAME, "config_source": _source(folder / "rds.json")},
        "http_filters": [
            picker.filter_config(picker_seconds),
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{EXTENSION}.filters.http.router.v3.Router"}},
        ],
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{EXTENSION}.access_loggers.file.v3.FileAccessLog",
                    "path": str(folder / "access.log"),
                },
            }
        ],
    }
    return {
        "node": {"id": "gateway", "cluster": "alise-test"},
        "admin": {"address": _address(0)},
        "dynamic_resources": {"cds_config": _source(folder / "cds.json")},
        "static_resources": {
            "listeners": [
                {
                    "name": LISTENER,
                    "address": _address(port),
                    "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
                }
            ]
        },
    }


def _address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _source(path: Path) -> Json:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def write(folder: Path, resources: Resources) -> None:
    """Move changed files into place: endpoints, then clusters, then routes, so that nothing names what is not there yet."""
    (folder / "eds").mkdir(exist_ok=True)
    for name, assignment in resources.assignments.items():
        _publish(folder / "eds" / f"{name}.json", "config.endpoint.v3.ClusterLoadAssignment", [assignment])
    _publish(folder / "cds.json", "config.cluster.v3.Cluster", [_with_folder(cluster, folder) for cluster in resources.clusters])
    _publish(folder / "rds.json", "config.route.v3.RouteConfiguration", [resources.route_config])


def _with_folder(cluster: Json, folder: Path) -> Json:
    """The cluster with an absolute path of its endpoints."""
    source = cluster["eds_cluster_config"]["eds_config"]["path_config_source"]
    return {**cluster, "eds_cluster_config": {"eds_config": _source(folder / source["path"])}}


def _publish(path: Path, kind: str, resources: Iterable[Json]) -> None:
    text = json.dumps({"resources": [{"@type": f"type.googleapis.com/envoy.{kind}", **item} for item in resources]})
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
