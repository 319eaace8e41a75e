"""The environment variables of the API-server process; pure.

The operator writes most of them from the resource, `alise-engine serve` the deadline on a CPU, and users VLLM_API_KEY.

Each variable says what it means, what is allowed and its default; `endpoint.py` reads an environment with them.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from alise_contract.names import (
    ADAPTERS_DIR_ENV,
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
    TRACES_RATIO_ENV,
    TRUST_HEADERS_ENV,
)

from ..errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Variable(Generic[T]):
    name: str
    # The value without the variable.
    default: T
    # Raises ValueError, TypeError, KeyError or AttributeError for a text that is not allowed.
    parse: Callable[[str], T]
    # What is allowed, as a noun.
    expected: str
    meaning: str

    def read(self, environ: Mapping[str, str]) -> T:
        """Returns the value in an environment. Raises ConfigError that names the variable, its value and what is expected."""
        given = environ.get(self.name)
        if given is None:
            return self.default
        try:
            return self.parse(given)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{self.name} is {given!r}: expected {self.expected}") from error


def _number(name: str, default: float, least: float, most: float, meaning: str) -> Variable[float]:
    def parse(text: str) -> float:
        number = float(text)
        if not (math.isfinite(number) and least <= number <= most):
            raise ValueError
        return number

    return Variable(name, default, parse, f"a number from {least:,} to {most:,}", meaning)


def _flag(name: str, meaning: str) -> Variable[bool]:
    return Variable(name, False, {"true": True, "false": False}.__getitem__, "true or false", meaning)


def _class_names(text: str) -> tuple[str, ...]:
    return tuple(str(one["name"]) for one in json.loads(text))


def _tenant_classes(text: str) -> Mapping[str, str]:
    return {str(tenant): str(klass) for tenant, klass in json.loads(text).items()}


SOCKETS: Final = Variable(SOCKET_DIR_ENV, SOCKET_DIR, str, "a folder", "Folder of the pod's sockets and of its key.")
ADMIT_DEADLINE: Final = _number(
    ADMIT_DEADLINE_ENV,
    ADMIT_DEADLINE_SECONDS * 1e3,
    *(1, 10_000),
    "Time that the scheduler has to answer for one request, in milliseconds. `alise-engine serve` sets 250 on a CPU.",
)
MAX_PENDING: Final = _number(
    MAX_PENDING_ENV, DEFAULT_MAX_PENDING, 0, 2**31, "Maximum number of requests that wait for their first step. 0 means no limit."
)
MAX_BODY_BYTES: Final = _number(MAX_BODY_BYTES_ENV, DEFAULT_MAX_BODY_BYTES, 1, 2**40, "Maximum size of a request's body, in bytes.")
BODY_SECONDS: Final = _number(
    BODY_SECONDS_ENV, DEFAULT_BODY_SECONDS, 0.1, 86_400, "Time in which a request's body must arrive, in seconds."
)
TRACES_RATIO: Final = _number(
    TRACES_RATIO_ENV,
    *(1, 0, 1),
    "Share of the requests that are traced if `--otlp-traces-endpoint` is given. Requests whose trace context is sampled are traced beyond "
    "it, 10 per second.",
)
CLASSES: Final[Variable[tuple[str, ...]]] = Variable(
    CLASSES_ENV, (), _class_names, 'a JSON list such as [{"name": "batch"}]', "Classes of requests, the same as the scheduler's."
)
TRUST_HEADERS: Final = _flag(TRUST_HEADERS_ENV, "Whether request headers may name the class and the tenant.")
AUTH_DIR: Final = Variable(
    AUTH_DIR_ENV,
    "",
    str,
    "a folder",
    "Folder with one file for each tenant, which holds one API key per line. Changes are noticed. Without it no key is needed.",
)
AUTH_CLASSES: Final[Variable[Mapping[str, str]]] = Variable(
    AUTH_CLASSES_ENV, {}, _tenant_classes, 'a JSON object such as {"team-a": "batch"}', "Class of each tenant's requests."
)
AUTH_METRICS: Final = _flag(AUTH_METRICS_ENV, "Whether `/metrics` needs an API key too.")
ISOLATE_PREFIX_CACHE: Final = _flag(ISOLATE_PREFIX_CACHE_ENV, "Whether each tenant has a prefix cache of its own.")
ADAPTERS_DIR: Final = Variable(
    ADAPTERS_DIR_ENV,
    "",
    str,
    "a folder",
    "Folder with `adapters.json`, the list of LoRA adapters to serve. Changes are noticed. Without it adapters are vLLM's own matter.",
)
# vLLM reads it too, for its --api-key.
VLLM_API_KEY: Final = Variable(
    "VLLM_API_KEY", "", str, "an API key", "vLLM's own variable for one API key; tenants are then named by a hash of the key."
)
