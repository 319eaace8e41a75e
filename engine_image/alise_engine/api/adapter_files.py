"""Finds the files of a LoRA adapter: in a folder of the pod, or downloaded from Hugging Face by a process of its own.

Runs in the API server's process, so that EngineCore never waits for a download. The download is a process because a thread cannot be
stopped when its deadline has passed. `engine_api.py` passes its `find` to the loader of adapters.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Final

from alise_contract.adapters import Adapter

from ..errors import AdapterError

CONFIG_FILE: Final = "adapter_config.json"
# The one format that cannot carry code.
WEIGHTS_FILE: Final = "adapter_model.safetensors"
DOWNLOADER: Final = "alise_engine.api.adapter_download"
DOWNLOAD_SECONDS: Final = 900.0


async def find(adapter: Adapter, max_rank: int, download_seconds: float = DOWNLOAD_SECONDS) -> Path:
    """Returns the folder with an adapter's files. Raises AdapterError."""
    folder = Path(adapter.uri) if adapter.uri.startswith("/") else await _downloaded(adapter, download_seconds)
    await asyncio.to_thread(check, folder, max_rank)
    return folder


def check(folder: Path, max_rank: int) -> None:
    """Raises AdapterError if the folder holds no adapter that this engine can serve. vLLM checks the weights themselves."""
    if not folder.is_dir():
        raise AdapterError(f"the folder {folder} does not exist in the engine's container")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise AdapterError(f"there is no {name}; an adapter has {CONFIG_FILE} and {WEIGHTS_FILE}, as PEFT saves it")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        rank = max(int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values()), 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise AdapterError(f"{CONFIG_FILE} cannot be read: {type(error).__name__}: {error}") from error
    if rank > max_rank:
        raise AdapterError(f"its rank is {rank} and spec.model.lora.maxRank is {max_rank}; raise maxRank, which restarts the pods")


async def _downloaded(adapter: Adapter, seconds: float) -> Path:
    """Raises AdapterError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", DOWNLOADER, adapter.uri, adapter.revision),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError as error:
        raise AdapterError(f"{adapter.uri} was not downloaded within {seconds:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise AdapterError(f"{adapter.uri} cannot be downloaded: {lines[-1] if lines else f'exit status {process.returncode}'}")
    return Path(output.decode().strip())
