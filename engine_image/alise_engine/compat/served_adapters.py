"""vLLM's table of LoRA adapters: loads an adapter into the engine, and lets clients ask for it by name.

vLLM's own routes for this (`/v1/load_lora_adapter`) are open to every client, so they stay closed and the table is changed here, as they
change it. `api/endpoint.py` creates it, and `api/adapter_loader.py` calls it.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

from ..errors import AdapterError

# Weights are read between two steps.
LOAD_SECONDS: Final = 300.0


class ServedAdapters:
    """`models` is vLLM's OpenAIServingModels, which every route shares."""

    def __init__(self, models: Any, engine_client: Any) -> None:
        self._models = models
        self._engine = engine_client
        self._lora = engine_client.vllm_config.lora_config
        self._before: set[tuple[str, str]] = set()
        self._links: Path | None = None

    @property
    def max_rank(self) -> int:
        return int(self._lora.max_lora_rank) if self._lora is not None else 0

    async def serve(self, name: str, folder: Path) -> None:
        """Loads the adapter under a new number, so that requests of an older version keep theirs. Raises AdapterError."""
        from vllm.lora.request import LoRARequest

        if self._lora is None:
            raise AdapterError("the engine runs without LoRA (--enable-lora)")
        if self._models.is_base_model(name):
            raise AdapterError("the name is a name of the model itself")
        request = LoRARequest(lora_name=name, lora_int_id=self._models.lora_id_counter.inc(1), lora_path=str(self._path(name, folder)))
        async with self._models.lora_resolver_lock[name]:
            try:
                await asyncio.wait_for(self._engine.add_lora(request), LOAD_SECONDS)
            except TimeoutError as error:
                raise AdapterError(f"the engine did not load it within {LOAD_SECONDS:.0f} s") from error
            except Exception as error:
                # vLLM raises bare Exceptions for a failed utility call.
                raise AdapterError(str(error).removeprefix("Call to add_lora method failed: ")) from error
            self._models.lora_requests[name] = request
            self._before.add((name, str(folder)))

    async def drop(self, name: str) -> None:
        """Removes the name. The weights stay until others need their place, because requests may still run with them."""
        async with self._models.lora_resolver_lock[name]:
            self._models.lora_requests.pop(name, None)

    def _path(self, name: str, folder: Path) -> Path:
        """Returns a path that was not loaded under this name before.

        The prefix cache knows an adapter by its name and path, and must not find the blocks of files that were replaced in their folder.
        """
        if (name, str(folder)) not in self._before:
            return folder
        if self._links is None:
            self._links = Path(tempfile.mkdtemp(prefix="alise-adapters-"))
        link = self._links / str(sum(1 for _ in self._links.iterdir()))
        link.symlink_to(folder)
        return link
