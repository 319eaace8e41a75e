"""vLLM's endpoint plugin: installs alise's half of the API-server process. The only module of `api` that reads the environment.

`attach_router` runs before vLLM adds its own middleware, and the middleware added last is the outermost: ours ends up inside API-key
authentication. `serve/plugin.py` creates it.
"""

import importlib.metadata
import logging
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from opentelemetry import trace
from opentelemetry.trace import Tracer
from starlette.datastructures import State

from alise_contract.names import STATUS_PATH
from alise_contract.pod_key import pod_key
from alise_contract.release import release

from ..compat.served_adapters import ServedAdapters
from ..errors import ConfigError, CoreUnavailable
from . import variables
from .body import BodyLimits
from .control.core import EngineCoreClient
from .engine_api import ApiSettings, EngineApi
from .identity import Keyring, Rules, digest
from .metrics import Metrics
from .middleware import AliseMiddleware
from .status import as_json

logger = logging.getLogger("vllm.alise.endpoint")


class ServerPlugin:
    """As `vllm.plugins.endpoint_plugins.interface.EndpointPlugin` wants it."""

    name = "alise"
    # Everything but `render`, which has no engine: pooling models need API keys, limits, a status and a drain just as well.
    required_tasks = ("generate", "embed", "token_embed", "classify", "token_classify", "plugin", "embed&token_classify")

    def __init__(self) -> None:
        self._api = EngineApi(settings(os.environ), Metrics())
        self._engine_client: Any = None
        self._told_to_end = False
        self.engine_died = False

    def attach_router(self, app: FastAPI) -> None:
        app.add_middleware(AliseMiddleware, gate=self._api)
        app.add_api_route(STATUS_PATH, self._status, methods=["GET"])
        # Stops with the application: the control socket vanishes when the last stream has ended.
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
            async with inner(app) as state:
                try:
                    yield state
                finally:
                    client = self._engine_client
                    self.engine_died = client is not None and bool(client.errored) and not self._told_to_end
                    await self._api.stop()

        app.router.lifespan_context = lifespan  # type: ignore[assignment]

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        """Connects to the engine. Raises ConfigError when it runs without alise's scheduler."""
        if keys := [key for key in (*(args.api_key or ()), variables.VLLM_API_KEY.read(os.environ)) if key]:
            self._api.use_flag_keys(Keyring({digest(key): f"key-{digest(key).hex()[:16]}" for key in keys}))
        self._engine_client = engine_client
        engine_client.shutdown = self._noting_the_end(engine_client.shutdown)
        engine_client.add_request = self._api.stamping(engine_client.add_request)
        text_only = not engine_client.model_config.is_multimodal_model
        try:
            names = args.served_model_name or ()
            await self._api.connect(EngineCoreClient(engine_client), text_only, names, _tracer(engine_client))
        except CoreUnavailable as error:
            raise ConfigError(f"the engine runs without alise's scheduler; start it with `alise-engine serve`: {error}") from error
        # The last step: the server answers once this returns, and then has its adapters.
        await self._api.serve_adapters(ServedAdapters(state.openai_serving_models, engine_client))

    def _noting_the_end(self, shutdown: Callable[..., Any]) -> Callable[..., Any]:
        """Notes whether the engine died. vLLM stops its engine before its server at a shutdown, and after it when the engine has died."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            self._told_to_end = True
            return shutdown(*args, **kwargs)

        return noted

    async def _status(self) -> JSONResponse:
        return JSONResponse(as_json(self._api.report()))


def _tracer(engine_client: Any) -> Tracer | None:
    """Returns a tracer of the provider that vLLM creates for `--otlp-traces-endpoint`; None without the flag."""
    if engine_client.observability_config.otlp_traces_endpoint is None:
        return None
    return trace.get_tracer("alise_engine", release())


def settings(environ: Mapping[str, str]) -> ApiSettings:
    """Returns the settings in an environment. Raises ConfigError that names the variable, its value and what is expected."""
    socket_dir = Path(variables.SOCKETS.read(environ))
    try:
        key = pod_key(socket_dir)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the pod's key cannot be created in {socket_dir}: {error}; use another --alise-socket-dir") from error
    auth_dir, adapters_dir = variables.AUTH_DIR.read(environ), variables.ADAPTERS_DIR.read(environ)
    return ApiSettings(
        socket_dir=socket_dir,
        admit_deadline_seconds=variables.ADMIT_DEADLINE.read(environ) / 1e3,
        vllm_version=importlib.metadata.version("vllm"),
        pod_key=key,
        max_pending=int(variables.MAX_PENDING.read(environ)),
        limits=BodyLimits(int(variables.MAX_BODY_BYTES.read(environ)), variables.BODY_SECONDS.read(environ)),
        rules=Rules(
            frozenset(variables.CLASSES.read(environ)),
            variables.AUTH_CLASSES.read(environ),
            variables.TRUST_HEADERS.read(environ),
        ),
        auth_dir=Path(auth_dir) if auth_dir else None,
        adapters_dir=Path(adapters_dir) if adapters_dir else None,
        guards_metrics=variables.AUTH_METRICS.read(environ),
        isolates_prefix_cache=variables.ISOLATE_PREFIX_CACHE.read(environ),
        traces_ratio=variables.TRACES_RATIO.read(environ),
    )
