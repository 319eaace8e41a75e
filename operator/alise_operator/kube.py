"""Calls the API server with plain objects. The only module that uses the Kubernetes client library; every other module gets a `Kube`.

Every call has a deadline. A refusal is an ApplyError with the server's message, a temporary failure is a ClusterError (it is retried, and
answers of 500 and above are reported as well), and a missing object is Gone. Lists are read in pages, so neither their size nor their
parsing grows with the contents of a namespace; where names and owners are enough, only the metadata of objects is read. `__main__.py`
creates it for the operator, and the picker's `__main__.py` for the picker.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client, config

from alise_operator import metrics
from alise_operator.children.meta import MANAGER, Manifest
from alise_operator.cluster import HTTP_ROUTE, INFERENCE_POOL, SCALED_OBJECT, Cluster, Images
from alise_operator.errors import AnswerTooLarge, ApplyError, ClusterError, Gone
from alise_operator.refusals import UNCONVERTED
from alise_operator.schema_fields import documents_field, has_field

REQUEST_SECONDS: Final = 15.0
# Objects of a page. An object has 1.5 MiB at most, a pod a few KiB: a page that is larger than an answer may be is read in smaller pages.
PAGE: Final = 100
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
# The most objects that `list` returns: an AliseEngine has only a few of any kind but pods.
MAX_LISTED: Final = 500
# The server ends a watch after this time; the client gives up a little later.
WATCH_SECONDS: Final = 240
_JSON: Final = "application/json"
# With a charset the client library sends the text unchanged instead of serializing it as JSON.
_APPLY: Final = "application/apply-patch+yaml; charset=utf-8"
_METADATA: Final = f"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{_JSON}"
_METADATA_LIST: Final = f"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{_JSON}"
_OPTIONAL_APIS: Final = (
    "policy/v1",
    "policy/v1beta1",
    *(kind.rpartition("/")[0] for kind in (HTTP_ROUTE, SCALED_OBJECT, INFERENCE_POOL)),
)
_TOKEN_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_NAMESPACE_FILE: Final = _TOKEN_FILE.with_name("namespace")
# Temporary failures, which are retried with backoff. 409 is a write that another writer overtook.
_PASSING: Final = frozenset({401, 408, 409, 410, 429})
# Server-side apply answers an unknown field, a missing key of a list or a value of the wrong type with 500, although the request is wrong
# and a retry changes nothing.
_REFUSALS_AS_500: Final = ("failed to create typed patch object", "field not declared in schema", UNCONVERTED)


@dataclass(frozen=True, slots=True)
class Resource:
    """A namespaced kind as the API server serves it: `Resource("apps/v1", "deployments")`."""

    group_version: str
    plural: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The path of one object, of a namespace's objects, or with an empty namespace of all objects."""
        root = "/api" if "/" not in self.group_version else "/apis"
        scope = ["namespaces", quote(namespace, safe="")] if namespace else []
        parts = [root, self.group_version, *scope, self.plural]
        return "/".join([*parts, *(quote(part, safe="") for part in (name, subresource) if part)])


_DEFINITIONS: Final = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions")
_ROUTE_DEFINITION: Final = "httproutes.gateway.networking.k8s.io"
_ROUTE_TIMEOUTS: Final = ("spec", "rules", "timeouts")


class Kube(Protocol):
    """The calls that the operator makes to a cluster."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """Raises Gone, ClusterError."""

    def pages(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = "", slim: bool = False
    ) -> AsyncIterator[Sequence[Manifest]]:
        """The objects of one namespace, or of all with an empty one, in pages; none when the kind is not served. `slim`: their metadata
        alone. Raises ApplyError (not allowed), ClusterError."""

    async def list(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = "", slim: bool = False
    ) -> Sequence[Manifest]:
        """As `pages` in one list, of the first MAX_LISTED objects or a few more. Raises ApplyError (not allowed), ClusterError."""

    async def version(self, resource: Resource, namespace: str, *, labels: str = "") -> str:
        """The version of the list of these objects now. Raises Gone (the kind is not served), ApplyError (not allowed), ClusterError."""

    def watch(self, resource: Resource, namespace: str, *, labels: str = "", since: str = "") -> AsyncIterator[Manifest]:
        """The metadata of each object that changes from now on, or after a version, until the server ends it. An object without a name is
        a version to go on from. Raises Gone (the kind is not served), ApplyError (not allowed), ClusterError (410: the version is too old).
        """

    async def apply(self, resource: Resource, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Server-side apply with our field manager. Raises ApplyError, ClusterError."""

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Deletes the object with that uid; it being gone already is fine. Raises ApplyError, ClusterError."""

    async def patch_status(self, resource: Resource, namespace: str, name: str, status: Manifest) -> Manifest:
        """Returns the object as it is then. Raises Gone, ApplyError, ClusterError."""

    async def scale(self, resource: Resource, namespace: str, name: str, replicas: int, version: str) -> None:
        """Sets the replicas through the scale subresource, if the object still has this version. Raises Gone, ApplyError, ClusterError
        (409: it has another version)."""

    async def patch(self, resource: Resource, namespace: str, name: str, changes: Manifest, *, dry_run: bool = False) -> Manifest:
        """Merges some fields into the object, without owning it as `apply` does. Raises Gone, ApplyError, ClusterError."""

    async def create(self, resource: Resource, manifest: Manifest) -> None:
        """Raises ApplyError, ClusterError."""

    async def replace(self, resource: Resource, manifest: Manifest) -> None:
        """Writes the object over the version of it that it names. Raises Gone, ApplyError, ClusterError (409: another one was faster)."""

    async def discover(self, images: Images) -> Cluster:
        """Raises ClusterError."""


def in_cluster(env: Mapping[str, str] = os.environ) -> bool:
    """Returns whether this process runs in a pod with a ServiceAccount's token and KUBECONFIG is not set."""
    return "KUBECONFIG" not in env and "KUBERNETES_SERVICE_HOST" in env and _TOKEN_FILE.exists()


def in_cluster_server(env: Mapping[str, str] = os.environ) -> str:
    """Returns the URL of the API server from the environment that the kubelet sets, as Kubernetes' own clients do.

    kopf uses the name kubernetes.default.svc, which a cluster without DNS cannot resolve, so that no watch would ever open.
    """
    host, port = env["KUBERNETES_SERVICE_HOST"], env.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def own_namespace(env: Mapping[str, str] = os.environ) -> str:
    """Returns the namespace of the operator's pod; outside a pod, the namespace in the manifests."""
    return _NAMESPACE_FILE.read_text().strip() if in_cluster(env) else Cluster(0, frozenset()).operator_namespace


def proxy_for(server: str) -> str | None:
    """Returns the proxy that the environment (HTTPS_PROXY, NO_PROXY) names for the server's URL; None if there is none."""
    url = urlsplit(server)
    return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)


class HttpKube:
    """A `Kube` over HTTP. Use as an asynchronous context manager."""

    def __init__(self, kubeconfig: Path | None = None) -> None:
        """Without a file, uses the ServiceAccount of the pod, or else KUBECONFIG."""
        self._kubeconfig = kubeconfig
        self._api: Any = None
        # Called before every write except `replace`; raises ClusterError if this process may not write (any more).
        self.before_write: Callable[[], None] = lambda: None

    async def __aenter__(self) -> "HttpKube":
        configuration = client.Configuration()
        if self._kubeconfig is not None:
            await config.load_kube_config(config_file=str(self._kubeconfig), client_configuration=configuration)
        elif in_cluster():
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(client_configuration=configuration)
        # Otherwise each request looks for a proxy in the environment and for a password in ~/.netrc, each in a thread: most of its time.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.proxy = configuration.proxy or proxy_for(configuration.host)
        self._api = client.ApiClient(configuration)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        return await self._call("GET", resource.path(namespace, name))

    async def pages(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = "", slim: bool = False
    ) -> AsyncIterator[Sequence[Manifest]]:
        query = _selectors(labels, fields) | {"limit": str(PAGE)}
        while True:
            try:
                answer = await self._call("GET", resource.path(namespace), query, accept=_METADATA_LIST if slim else _JSON)
            except Gone:
                return
            except AnswerTooLarge:
                if query["limit"] == "1":
                    raise
                query["limit"] = str(max(1, int(query["limit"]) // 4))
                continue
            after = (answer.get("metadata") or {}).get("continue")
            # This is null in an empty list of metadata.
            yield answer.get("items") or []
            if not after:
                return
            query["continue"] = after
            del answer

    async def list(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = "", slim: bool = False
    ) -> Sequence[Manifest]:
        found: tuple[Manifest, ...] = ()
        async for page in self.pages(resource, namespace, labels=labels, fields=fields, slim=slim):
            found += tuple(page)
            if len(found) >= MAX_LISTED:
                break
        return found

    async def version(self, resource: Resource, namespace: str, *, labels: str = "") -> str:
        query = _selectors(labels, "") | {"limit": "1"}
        return str((await self._call("GET", resource.path(namespace), query, accept=_METADATA_LIST))["metadata"]["resourceVersion"])

    async def watch(self, resource: Resource, namespace: str, *, labels: str = "", since: str = "") -> AsyncIterator[Manifest]:
        path, since = resource.path(namespace), since or await self.version(resource, namespace, labels=labels)
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": since, "timeoutSeconds": str(WATCH_SECONDS)}
        query |= _selectors(labels, "")
        request = f"WATCH {path}"
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await self._send("GET", path, query, None, _METADATA, _JSON, WATCH_SECONDS + REQUEST_SECONDS)
            async with response:
                if response.status != 200:
                    answered(request, response.status, await response.content.read(MAX_ANSWER_BYTES))
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        answered(request, int(event["object"].get("code", 500)), json.dumps(event["object"]).encode())
                    yield event["object"]
        except (aiohttp.ClientError, client.ApiException, OSError, ValueError, TimeoutError) as error:
            raise ClusterError(f"{request}: the watch was interrupted: {error or type(error).__name__}") from error

    async def apply(self, resource: Resource, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        meta = manifest["metadata"]
        query = {"fieldManager": MANAGER, "force": "true"} | ({"dryRun": "All"} if dry_run else {})
        path = resource.path(meta["namespace"], meta["name"])
        return await self._call("PATCH", path, query, as_yaml(manifest), content_type=_APPLY)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._call("DELETE", resource.path(namespace, name), None, options)
        except Gone:
            return

    async def patch_status(self, resource: Resource, namespace: str, name: str, status: Manifest) -> Manifest:
        path = resource.path(namespace, name, "status")
        query = {"fieldManager": MANAGER}
        return await self._call("PATCH", path, query, {"status": status}, content_type="application/merge-patch+json")

    async def scale(self, resource: Resource, namespace: str, name: str, replicas: int, version: str) -> None:
        path, query = resource.path(namespace, name, "scale"), {"fieldManager": MANAGER}
        changes = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        await self._call("PATCH", path, query, changes, content_type="application/merge-patch+json")

    async def patch(self, resource: Resource, namespace: str, name: str, changes: Manifest, *, dry_run: bool = False) -> Manifest:
        path, query = resource.path(namespace, name), {"fieldManager": MANAGER} | ({"dryRun": "All"} if dry_run else {})
        return await self._call("PATCH", path, query, changes, content_type="application/merge-patch+json")

    async def create(self, resource: Resource, manifest: Manifest) -> None:
        await self._call("POST", resource.path(manifest["metadata"]["namespace"]), {"fieldManager": MANAGER}, manifest)

    async def replace(self, resource: Resource, manifest: Manifest) -> None:
        meta = manifest["metadata"]
        await self._call("PUT", resource.path(meta["namespace"], meta["name"]), {"fieldManager": MANAGER}, manifest)

    async def discover(self, images: Images) -> Cluster:
        version = await self._call("GET", "/version")
        apis: set[str] = set()
        for group_version in _OPTIONAL_APIS:
            try:
                served = await self._call("GET", f"/apis/{group_version}")
            except Gone:
                continue
            apis |= {f"{group_version}/{one['kind']}" for one in served["resources"] if "/" not in one["name"]}
        major, minor = _parse_version(str(version.get("gitVersion", "")))
        cluster = Cluster(minor, frozenset(apis), images, major, HTTP_ROUTE not in apis or await self._has_route_timeouts())
        return replace(cluster, operator_namespace=own_namespace())

    async def _has_route_timeouts(self) -> bool:
        """Returns whether rules of HTTPRoutes have the field `timeouts`; False if neither the CRD nor the OpenAPI document may be read."""
        try:
            definitions = await self.list(_DEFINITIONS, "", fields=f"metadata.name={_ROUTE_DEFINITION}")
            return all(has_field(one, HTTP_ROUTE.split("/")[1], _ROUTE_TIMEOUTS) for one in definitions)
        except ApplyError:
            pass
        try:
            # An operator for one namespace may not read CRDs, but every client may read the OpenAPI document.
            document = await self._call("GET", f"/openapi/v3/apis/{HTTP_ROUTE.rpartition('/')[0]}")
        except (ApplyError, Gone):
            return False
        return documents_field(document, "HTTPRoute", _ROUTE_TIMEOUTS)

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | str | None = None,
        *,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Manifest:
        request = f"{method} {path}"
        if method not in ("GET", "PUT"):
            self.before_write()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                response = await self._send(method, path, query or {}, body, accept, content_type, REQUEST_SECONDS)
                try:
                    content = await _read(request, response)
                finally:
                    response.release()
        except TimeoutError as error:
            metrics.API_REQUESTS.labels(method, "timeout").inc()
            # 504 as from a gateway: a webhook may hang while other requests are answered.
            raise ClusterError(f"{request}: no answer from the API server within {REQUEST_SECONDS:.0f} s", status=504) from error
        except (aiohttp.ClientError, client.ApiException, OSError) as error:
            metrics.API_REQUESTS.labels(method, "unreachable").inc()
            raise ClusterError(f"{request}: the API server cannot be reached: {error}") from error
        metrics.API_REQUESTS.labels(method, f"{response.status // 100}xx").inc()
        return answered(request, response.status, content)

    async def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Manifest | str | None, accept: str, content_type: str, seconds: float
    ) -> aiohttp.ClientResponse:
        """Returns the response; its body is still to be read."""
        headers = {"Accept": accept, "Content-Type": content_type}
        serialized = await self._api.param_serialize(
            method, path, header_params=headers, query_params=[], body=body, auth_settings=["BearerToken"]
        )
        url = serialized[1] + (f"?{urlencode(query)}" if query else "")
        answer = await self._api.call_api(method, url, *serialized[2:], _request_timeout=seconds)
        response: aiohttp.ClientResponse = answer.response
        return response


def as_yaml(manifest: Manifest) -> str:
    """Returns the manifest as JSON that is valid YAML too.

    YAML allows neither raw control characters nor the surrogate pairs by which JSON escapes characters beyond U+FFFF, such as an emoji in
    an annotation.
    """
    return re.sub("[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(manifest, ensure_ascii=False))


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


async def _read(request: str, response: aiohttp.ClientResponse) -> bytes:
    """Returns the body. Raises AnswerTooLarge."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            response.close()
            raise AnswerTooLarge(f"{request}: the API server answered with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


def _parse_version(git_version: str) -> tuple[int, int]:
    """v1.29.4-gke.1 -> (1, 29). The fields `major` and `minor` are empty or "29+" in some builds."""
    parts = re.match(r"v?(\d+)\.(\d+)", git_version)
    if parts is None:
        raise ClusterError(f"the API server's version {git_version!r} cannot be read")
    return int(parts[1]), int(parts[2])


def answered(request: str, status: int, content: bytes) -> Manifest:
    """Returns the object in an answer. Raises Gone, ApplyError or ClusterError for an error status."""
    try:
        answer = json.loads(content) if content else {}
    except ValueError:
        answer = {"message": content[:300].decode(errors="replace")}
    if not isinstance(answer, dict):
        raise ClusterError(f"{request}: the API server answered {status} with something other than an object", status=status)
    if 200 <= status < 300:
        return answer
    text = f"{request}: {answer.get('message') or 'no message'} ({status})"
    if status == 404:
        raise Gone(text, status=status)
    causes = [cause.get("reason") for cause in (answer.get("details") or {}).get("causes") or ()]
    if any(words in text for words in _REFUSALS_AS_500):
        raise ApplyError(str(answer["message"]))
    # A namespace that is being deleted deletes the AliseEngine too, so there is nothing to report on it.
    if status in _PASSING or status >= 500 or "NamespaceTerminating" in causes:
        raise ClusterError(text, status=status)
    raise ApplyError(str(answer.get("message") or text))
