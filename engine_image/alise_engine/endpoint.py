"""vLLM's endpoint plugin: puts alise's half of the API-server process into the application. Alone to read the environment there.

`attach_router` runs before vLLM adds its own middleware, and the middleware added last is the outermost: ours ends up inside API-key
authentication.
"""

import importlib.metadata
import logging
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.datastructures import State

from alise_contract.names import ADMIT_DEADLINE_ENV, ADMIT_DEADLINE_SECONDS, SOCKET_DIR, SOCKET_DIR_ENV, STATUS_PATH

from .api import ApiSettings, EngineApi
from .control.core import EngineCoreClient
from .errors import ConfigError, CoreUnavailable
from .metrics import Metrics
from .middleware import AliseMiddleware
from .status import as_json

logger = logging.getLogger("vllm.alise.endpoint")


class ServerPlugin:
    """As `vllm.plugins.endpoint_plugins.interface.EndpointPlugin` wants it."""

    name = "alise"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._api = EngineApi(settings(os.environ), Metrics())

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
                    await self._api.stop()

        app.router.lifespan_context = lifespan  # type: ignore[assignment]

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        """Raises ConfigError when the engine is not one of ours."""
        models = state.openai_serving_models

        def serves(model: str) -> bool:
            return bool(models.is_base_model(model)) or model in models.lora_requests

        try:
            await self._api.connect(EngineCoreClient(engine_client), serves)
        except CoreUnavailable as error:
            raise ConfigError(f"the engine runs without alise's scheduler, start it with `alise-engine serve`: {error}") from error

    async def _status(self) -> JSONResponse:
        return JSONResponse(as_json(self._api.report()))


def settings(environ: Mapping[str, str]) -> ApiSettings:
    """Raises ConfigError for a deadline that is none."""
    given = environ.get(ADMIT_DEADLINE_ENV, str(ADMIT_DEADLINE_SECONDS * 1e3))
    try:
        deadline_ms = float(given)
    except ValueError:
        deadline_ms = -1.0
    if not 1 <= deadline_ms <= 10_000:
        raise ConfigError(f"{ADMIT_DEADLINE_ENV} is {given!r}: expected milliseconds from 1 to 10000")
    return ApiSettings(
        socket_dir=Path(environ.get(SOCKET_DIR_ENV, SOCKET_DIR)),
        admit_deadline_seconds=deadline_ms / 1e3,
        vllm_version=importlib.metadata.version("vllm"),
    )
