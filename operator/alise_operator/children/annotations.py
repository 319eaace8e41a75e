"""Decides which annotations a route may have, because some ingress controllers execute an annotation or redirect requests because of it.

Pure: route.py calls `checked()`. The operator's setting ALISE_ROUTE_ANNOTATIONS_ALLOW extends the list here.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from alise_operator.cluster import Cluster
from alise_operator.errors import InvalidSpec, Problem

# Sets the class of an Ingress for controllers that are older than the field.
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"
SETTING: Final = "ALISE_ROUTE_ANNOTATIONS_ALLOW"
_WAY_OUT: Final = (
    "leave it out. Otherwise ask the operator's administrator to allow it: add the annotation's name to the comma-separated list "
    f"{SETTING} in the "
    "environment of the operator's Deployment (a name there may end with *)"
)
# Names, or beginnings of names that end with *. None of them takes configuration, a script or a destination of requests.
# Names without a prefix belong to the user, and no controller reads them.
HARMLESS: Final = (
    CLASS_ANNOTATION,
    "kubernetes.io/tls-acme",
    "cert-manager.io/*",
    "acme.cert-manager.io/*",
    "external-dns.alpha.kubernetes.io/ttl",
    "networking.gke.io/managed-certificates",
    "kubernetes.io/ingress.allow-http",
    *(
        f"nginx.ingress.kubernetes.io/{name}"
        for name in (
            "backend-protocol",
            "client-body-buffer-size",
            "denylist-source-range",
            "force-ssl-redirect",
            "limit-burst-multiplier",
            "limit-connections",
            "limit-rate",
            "limit-rate-after",
            "limit-rpm",
            "limit-rps",
            "proxy-body-size",
            "proxy-buffer-size",
            "proxy-buffering",
            "proxy-buffers-number",
            "proxy-connect-timeout",
            "proxy-http-version",
            "proxy-read-timeout",
            "proxy-request-buffering",
            "proxy-send-timeout",
            "ssl-redirect",
            "whitelist-source-range",
        )
    ),
    *(
        f"haproxy.org/{name}"
        for name in (
            "allow-list",
            "deny-list",
            "rate-limit-period",
            "rate-limit-requests",
            "ssl-redirect",
            "timeout-client",
            "timeout-http-request",
            "timeout-server",
            "timeout-tunnel",
            "whitelist",
        )
    ),
    "traefik.ingress.kubernetes.io/router.entrypoints",
    "traefik.ingress.kubernetes.io/router.tls",
    "traefik.ingress.kubernetes.io/router.tls.certresolver",
    "alb.ingress.kubernetes.io/certificate-arn",
    "alb.ingress.kubernetes.io/healthcheck-path",
    "alb.ingress.kubernetes.io/listen-ports",
    "alb.ingress.kubernetes.io/scheme",
    "alb.ingress.kubernetes.io/ssl-redirect",
    "alb.ingress.kubernetes.io/target-type",
)
# Characters that can end a directive in a controller's configuration and begin another one.
_ODD_VALUE: Final = re.compile(r"[;{}$`\\'#\x00-\x1f\x7f]")


def checked(annotations: Mapping[str, str], cluster: Cluster) -> dict[str, str]:
    """Returns the annotations. Raises InvalidSpec, which names all that are not allowed."""
    problems = list(annotation_problems(annotations, cluster.route_annotations))
    if problems:
        raise InvalidSpec(problems)
    return dict(annotations)


def annotation_problems(annotations: Mapping[str, str], allowed: Collection[str]) -> Iterator[Problem]:
    """Yields a problem for each annotation that is not allowed. `allowed` are the names that the operator's setting adds."""
    for name, value in annotations.items():
        field = f"spec.route.annotations[{name}]"
        if "/" not in name or _is_one_of(name, allowed):
            continue
        if not _is_one_of(name, HARMLESS):
            yield Problem(
                field,
                f"this operator does not allow the annotation, because it can inject configuration into the ingress controller; {_WAY_OUT}",
            )
        elif (odd := _ODD_VALUE.search(value)) is not None:
            yield Problem(
                field,
                f"the value contains {odd[0]!r}, which can end a directive in a controller's configuration; {_WAY_OUT}",
            )


def _is_one_of(name: str, patterns: Collection[str]) -> bool:
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in patterns)
