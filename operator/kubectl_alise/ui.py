"""Serves the operator's page on this machine, and fills in the requests that the person's own rights let it read.

`cli.py` calls it. It answers GET on the loopback, for one person, until it is interrupted.
"""

import errno
import secrets
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from alise_contract import page
from alise_contract.names import ENGINE_LABEL

from . import page_parts, pods
from .errors import PluginError
from .forward import Answer, Operator
from .kubectl import Cluster
from .local_rules import KEY_PARAMETER, Redirect, Refused, admission
from .objects import Pod, pod_of

HOST: Final = "127.0.0.1"
# Each is asked by a kubectl process for each page; the terminal's `top` asks all.
MOST_PODS: Final = 16
# Requests of one pod.
LIMIT: Final = 50
# For one kubectl: the page comes again after ten seconds.
CALL_SECONDS: Final = 10.0
_MOST_ID_CHARS: Final = 256


class Ui:
    """The page: the operator's, with its places filled. Safe for several threads."""

    def __init__(self, operator: Operator, cluster_of: Callable[[str], Cluster]) -> None:
        """`cluster_of` returns the cluster with a namespace."""
        self._operator = operator
        self._cluster_of = cluster_of

    def get(self, target: str) -> Answer:
        """The answer for a path with its query."""
        try:
            answer = self._operator.get(target)
        except PluginError as error:
            return _page(502, "The operator's page cannot be read", f"{error}.")
        parts = urlsplit(target)
        match = page.ENGINE_PATH.fullmatch(parts.path)
        if match is None or answer.status != 200:
            return answer
        request_id = parse_qs(parts.query).get(page.REQUEST_PARAMETER, [""])[0].strip()[:_MOST_ID_CHARS]
        text = self._filled(answer.body.decode(errors="replace"), match[1], match[2], request_id)
        return Answer(answer.status, answer.content_type, text.encode())

    def _filled(self, text: str, namespace: str, name: str, request_id: str) -> str:
        cluster = self._cluster_of(namespace)
        try:
            found = [pod_of(one) for one in cluster.get("pods", f"--selector={ENGINE_LABEL}={name}")["items"]]
        except PluginError as error:
            return page.filled(text, page.REQUESTS_PLACE, page_parts.problem_html(f"The requests cannot be read: {error}."))
        asked = found[:MOST_PODS]
        left_out = page_parts.problem_html(f"Only the first {MOST_PODS} of {len(found)} pods were asked.") if len(found) > MOST_PODS else ""
        if request_id:
            text = page.filled(text, page.ACCOUNT_PLACE, _tried(lambda: self._account(cluster, asked, request_id)))
        return page.filled(text, page.REQUESTS_PLACE, left_out + _tried(lambda: self._requests(cluster, asked)))

    def _account(self, cluster: Cluster, asked: list[Pod], request_id: str) -> str:
        return page_parts.account_html(request_id, pods.accounts(cluster, asked, request_id)[0])

    def _requests(self, cluster: Cluster, asked: list[Pod]) -> str:
        return page_parts.requests_html(*pods.requests(cluster, asked, LIMIT))


def _tried(make: Callable[[], str]) -> str:
    try:
        return make()
    except PluginError as error:
        return page_parts.problem_html(f"The requests cannot be read: {error}.")
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        return page_parts.problem_html("The answer of a pod was not understood: its image may be of another release than this plugin.")


def _page(status: int, title: str, text: str) -> Answer:
    return Answer(status, "text/html; charset=utf-8", page_parts.page_html(title, text).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints nothing about a browser that went away, which is usual: the terminal is the person's."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def serving(ui: Ui, port: int, key: str | None = None) -> tuple[ThreadingHTTPServer, str]:
    """The server, which listens and whose `serve_forever` serves, and the address to open. Raises PluginError if the port is taken."""
    secret = key or secrets.token_urlsafe(24)
    try:
        server = _Server((HOST, port), _handler(ui, secret))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise PluginError(f"port {port} cannot be opened: {error.strerror}") from error
        why = "is in use" if error.errno == errno.EADDRINUSE else "may not be opened by you"
        raise PluginError(f"port {port} {why}: give another one with --port, or --port=0 for a free one") from error
    return server, f"http://{HOST}:{server.server_port}/?{KEY_PARAMETER}={secret}"


def _handler(ui: Ui, key: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        # A browser that sends nothing keeps no thread.
        timeout = 20
        server_version = "kubectl-alise"
        sys_version = ""

        def do_GET(self) -> None:
            port = int(self.connection.getsockname()[1])
            decided = admission(self.path, self.headers.get("Host", ""), self.headers.get("Cookie", ""), key, port)
            if isinstance(decided, Refused):
                self._answer(_page(decided.status, "This page is not for you", decided.text))
            elif isinstance(decided, Redirect):
                self._answer(Answer(303, "text/html; charset=utf-8", b""), ("Location", decided.location), ("Set-Cookie", decided.cookie))
            else:
                self._answer(ui.get(decided.path))

        def _answer(self, answer: Answer, *more: tuple[str, str]) -> None:
            self.send_response(answer.status)
            fixed = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
            for name, value in [*fixed, *page.HEADERS.items(), *more]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None:
            """Prints nothing: the terminal is the person's."""

    return Handler
