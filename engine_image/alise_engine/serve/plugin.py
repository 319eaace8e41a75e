"""Entry points of the plugin, which vLLM loads by the names in pyproject.toml.

`register` runs in every vLLM process (API server, EngineCore, workers), before any configuration exists: it must stay cheap and must not
import the engine. It registers the KV connector, and corrects vLLM in the process through `compat/patches.py`. `AliseEndpoint` reads the
environment, and creates the pod's key if there is none.
"""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..api.endpoint import ServerPlugin

logger = logging.getLogger("vllm.alise.plugin")

CONNECTOR_NAME = "AliseKVConnector"
CONNECTOR_MODULE = "alise_engine.kv.connector"
SCHEDULER_CLS = "alise_engine.enginecore.scheduler.make_scheduler"
# Of this process; there is one at most.
_servers: "list[ServerPlugin]" = []


def engine_died() -> bool:
    """Returns whether the server of this process has ended because its engine had."""
    return any(server.engine_died for server in _servers)


def register() -> None:
    """`vllm.general_plugins`: makes the KV connector known by name, and corrects how vLLM runs a model on a CPU and compares adapters."""
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    if CONNECTOR_NAME not in KVConnectorFactory._registry:
        KVConnectorFactory.register_connector(CONNECTOR_NAME, CONNECTOR_MODULE, CONNECTOR_NAME)
    from ..compat.patches import correct_workers, tell_adapters_apart

    correct_workers()
    tell_adapters_apart()


def AliseEndpoint() -> "ServerPlugin":
    """`vllm.endpoint_plugins`: the middleware, the status route and the control server; only the API server makes one.

    Raises SystemExit when it cannot be created: vLLM logs any other exception here and serves without the plugin, without keys and limits.
    """
    try:
        from ..api.endpoint import ServerPlugin

        server = ServerPlugin()
        _servers.append(server)
        return server
    except Exception as error:
        logger.exception("the API server does not start, because alise's middleware cannot be installed")
        raise SystemExit(f"alise-engine: {error}") from error
