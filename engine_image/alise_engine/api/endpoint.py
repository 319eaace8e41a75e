"""vLLM's endpoint plugin: puts alise's half of the API-server process into the application. Alone to read the environment there.

`attach_router` runs before vLLM adds its own middleware, and the middleware added last is the outermost: ours ends up inside API-key
authentication.
"""

import importlib.metadata
import json
import logging
import math
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.datastructures import State

from alise_contract.names import (
    ADMIT_DEADLINE_ENV,
    ADMIT_DEADLINE_SECONDS,
    AUTH_CLASSES_ENV,
    AUTH_DIR_ENV,
    AUTH_METRICS_ENV,
    BODY_SECONDS_ENV,
    CLASSES_ENV,
    DEFAULT_BODY_SECONDS,
    DEFAULT_MAX_BODY_BYTES,
    DEFAULT_MAX_PENDING,
    ISOLATE_PREFIX_CACHE_ENV,
    MAX_BODY_BYTES_ENV,
    MAX_PENDING_ENV,
    SOCKET_DIR,
    SOCKET_DIR_ENV,
    STATUS_PATH,
    TRUST_HEADERS_ENV,
)
from alise_contract.stamp import pod_key

from ..errors import ConfigError, CoreUnavailable
from .body import BodyLimits
from .control.core import EngineCoreClient
from .engine_api import ApiSettings, EngineApi
from .identity import Keyring, Rules, digest
from .metrics import Metrics
from .middleware import AliseMiddleware
from .status import as_json

logger = logging.getLogger("vllm.alise.endpoint")

T = TypeVar("T")
# vLLM's own variable for --api-key.
_VLLM_API_KEY_ENV: Final = "VLLM_API_KEY"


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
        """Raises ConfigError when the engine is not one of ours."""
        if keys := [key for key in (*(args.api_key or ()), os.environ.get(_VLLM_API_KEY_ENV, "")) if key]:
            self._api.use_flag_keys(Keyring({digest(key): f"key-{digest(key).hex()[:16]}" for key in keys}))
        self._engine_client = engine_client
        engine_client.shutdown = self._noting_the_end(engine_client.shutdown)
        engine_client.add_request = self._api.stamping(engine_client.add_request)
        text_only = not engine_client.model_config.is_multimodal_model
        try:
            await self._api.connect(EngineCoreClient(engine_client), text_only, args.served_model_name or ())
        except CoreUnavailable as error:
            raise ConfigError(f"the engine runs without alise's scheduler, start it with `alise-engine serve`: {error}") from error

    def _noting_the_end(self, shutdown: Callable[..., Any]) -> Callable[..., Any]:
        """vLLM ends its engine before its server when it is told to, and after it when the engine has died."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            self._told_to_end = True
            return shutdown(*args, **kwargs)

        return noted

    async def _status(self) -> JSONResponse:
        return JSONResponse(as_json(self._api.report()))


def settings(environ: Mapping[str, str]) -> ApiSettings:
    """Returns the settings in an environment. Raises ConfigError that names the variable, its value and what is expected."""
    socket_dir = Path(environ.get(SOCKET_DIR_ENV, SOCKET_DIR))
    try:
        key = pod_key(socket_dir)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the pod's key cannot be made in {socket_dir}: {error}; use another --alise-socket-dir") from error
    classes = frozenset(_read(environ, CLASSES_ENV, _class_names, 'a JSON list such as [{"name": "batch"}]', ()))
    return ApiSettings(
        socket_dir=socket_dir,
        admit_deadline_seconds=_number(environ, ADMIT_DEADLINE_ENV, 1, 10_000, ADMIT_DEADLINE_SECONDS * 1e3) / 1e3,
        vllm_version=importlib.metadata.version("vllm"),
        pod_key=key,
        max_pending=int(_number(environ, MAX_PENDING_ENV, 0, 2**31, DEFAULT_MAX_PENDING)),
        limits=BodyLimits(
            int(_number(environ, MAX_BODY_BYTES_ENV, 1, 2**40, DEFAULT_MAX_BODY_BYTES)),
            _number(environ, BODY_SECONDS_ENV, 0.1, 86_400, DEFAULT_BODY_SECONDS),
        ),
        rules=Rules(
            classes,
            _read(environ, AUTH_CLASSES_ENV, _tenant_classes, 'a JSON object such as {"team-a": "batch"}', {}),
            _flag(environ, TRUST_HEADERS_ENV),
        ),
        auth_dir=Path(environ[AUTH_DIR_ENV]) if environ.get(AUTH_DIR_ENV) else None,
        guards_metrics=_flag(environ, AUTH_METRICS_ENV),
        isolates_prefix_cache=_flag(environ, ISOLATE_PREFIX_CACHE_ENV),
    )


def _read(environ: Mapping[str, str], name: str, parse: Callable[[str], T], expected: str, default: Any) -> T:
    given = environ.get(name)
    if given is None:
        return default  # type: ignore[no-any-return]
    try:
        return parse(given)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{name} is {given!r}: expected {expected}") from error


def _number(environ: Mapping[str, str], name: str, least: float, most: float, default: float) -> float:
    def parse(text: str) -> float:
        number = float(text)
        if not (math.isfinite(number) and least <= number <= most):
            raise ValueError
        return number

    return _read(environ, name, parse, f"a number from {least:g} to {most:g}", default)


def _flag(environ: Mapping[str, str], name: str) -> bool:
    return _read(environ, name, {"true": True, "false": False}.__getitem__, "true or false", False)


def _class_names(text: str) -> list[str]:
    return [str(one["name"]) for one in json.loads(text)]


def _tenant_classes(text: str) -> dict[str, str]:
    return {str(tenant): str(klass) for tenant, klass in json.loads(text).items()}
