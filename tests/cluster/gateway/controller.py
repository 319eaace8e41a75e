"""The gateway: a real Envoy that follows the cluster's Ingress and HTTPRoute objects. For tests and the demo only.

`__main__.py`, `tests/tools/run.py` and the fixtures of `tests/e2e` start it.
"""

import asyncio
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from tests.cluster.errors import ClusterError, NotReady
from tests.cluster.gateway.answers import accepted
from tests.cluster.gateway.envoy import Envoy
from tests.cluster.gateway.picker import MESSAGE_SECONDS
from tests.cluster.gateway.resources import Objects, Resources, envoy_resources
from tests.cluster.gateway.watch import Api, Mirror, status_patches
from tests.cluster.progress import say

START_SECONDS = 60.0
STOP_SECONDS = 10.0
# Changes that come together (a rollout) are written together.
SETTLE_SECONDS = 0.02


class Gateway:
    """`with Gateway(kubeconfig) as gateway:` routes what the cluster's Ingress and HTTPRoute objects of class `alise-test` say.

    Envoy listens on 127.0.0.1 at `gateway.port` (`port=0`: a free one). After the block nothing is left. The objects are followed in a
    thread with an event loop of its own, so that tests of any kind can use it.
    """

    def __init__(self, kubeconfig: Path, port: int = 0, picker_seconds: float = MESSAGE_SECONDS) -> None:
        """Start nothing yet. After `picker_seconds` an endpoint picker is passed over."""
        self._kubeconfig = kubeconfig
        self._folder = tempfile.TemporaryDirectory(prefix="alise-gateway-")
        self._envoy = Envoy(Path(self._folder.name), port, picker_seconds)
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._first_update = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._resources = envoy_resources(Objects())

    @property
    def port(self) -> int:
        """Envoy's port on 127.0.0.1."""
        return self._envoy.port

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`; the request's Host header chooses the route."""
        return self._envoy.url

    @property
    def access_log(self) -> Path:
        """Envoy's access log, one line per request that ended."""
        return Path(self._folder.name) / "access.log"

    @property
    def resources(self) -> Resources:
        """The resources that Envoy got last."""
        return self._resources

    def __enter__(self) -> Self:
        """Start Envoy and wait until the cluster's objects were read once."""
        try:
            self._envoy.__enter__()
            self._thread.start()
            if not self._first_update.wait(START_SECONDS):
                raise NotReady(f"the API server of {self._kubeconfig} did not list what the gateway reads within {START_SECONDS:g} s")
            if self._failure is not None:
                raise ClusterError(f"the gateway cannot follow the cluster of {self._kubeconfig}: {self._failure}") from self._failure
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End everything."""
        if self._loop is not None and self._task is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(STOP_SECONDS)
        self._envoy.__exit__(None, None, None)
        self._folder.cleanup()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except BaseException as failure:
            self._failure = failure
            say(f"gateway: stopped following the cluster: {type(failure).__name__}: {failure}")
        finally:
            self._first_update.set()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        api = await Api.from_kubeconfig(str(self._kubeconfig))
        mirror = Mirror(api)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(mirror.run())
                group.create_task(self._translate(api, mirror))
        finally:
            await api.close()

    async def _translate(self, api: Api, mirror: Mirror) -> None:
        await mirror.wait_listed()
        told: frozenset[str] = frozenset()
        while True:
            mirror.changed.clear()
            objects = mirror.objects()
            self._resources = envoy_resources(accepted(objects))
            self._envoy.update(self._resources)
            for warning in sorted(frozenset(self._resources.warnings) - told):
                say(f"gateway: {warning}")
            told = frozenset(self._resources.warnings)
            self._first_update.set()
            for path, status in status_patches(objects, self.port):
                try:
                    await api.patch_status(path, status)
                except (aiohttp.ClientError, TimeoutError) as error:
                    say(f"gateway: the status of {path} was not written, the next change tries again: {error}")
            await mirror.changed.wait()
            await asyncio.sleep(SETTLE_SECONDS)
