"""How a container ended, why, and what to do about it. Pure.

A container's status has its exit code and its last words. Which probe failed is known from the pod's events (pods.py fetches them), or from
the engine's own words.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from signal import SIGKILL, SIGTERM, Signals
from typing import Any, Final

from alise_contract.names import ENGINE_CONTAINER, ENGINE_PORT, SCHEDULER_CONTAINER
from alise_operator.children.meta import Manifest
from alise_operator.children.pod import STARTUP_SECONDS, liveness_probe, startup_probe
from alise_operator.sentences import clause, words

_PATCH: Final = "spec.podTemplate.spec"
# Linux's signals; an exit code beyond 128 and these is one of the program's own.
_SIGNALS: Final = 64
_OURS: Final = (ENGINE_CONTAINER, SCHEDULER_CONTAINER)
_ENGINE_SAYS: Final = "alise-engine: "
_TRACEBACK: Final = "Traceback (most recent call last):"
# Of the engine, which has a startup probe and a liveness probe.
_WHILE_STARTING: Final = "alise-engine: ended while it was starting"
# By container: how it shows that the image is another one's, and what that is called.
_WRONG_IMAGE: Final[Mapping[str, tuple[tuple[str, ...], str, str]]] = {
    ENGINE_CONTAINER: (("No module named 'alise_engine'", '"alise-engine": executable file not found'), "engine", "spec.engine.image"),
    SCHEDULER_CONTAINER: (
        ("No module named 'alise_scheduler'", '"alise-scheduler": executable file not found'),
        "scheduler",
        "spec.scheduling.image",
    ),
}
# Both images have it as PID 1; in an image without it, it is what is not found.
_INIT_MISSING: Final = '"tini": executable file not found'
# Reasons of a pod's events about its probes, with their types: one failed, and the kubelet ends a container for it.
PROBE_EVENTS: Final = {"Unhealthy": "Warning", "Killing": "Normal"}
_ENDED_BY_PROBE: Final = re.compile(r"Container (?P<container>[-a-z0-9]{1,63}) failed (?P<probe>startup|liveness) probe, will be restarted")
_PROBES: Final = {"startup": "startupProbe", "liveness": "livenessProbe"}
# Those of the engine that the user did not change.
_OWN_PROBES: Final = {"startup": startup_probe(), "liveness": liveness_probe()}
_HEALTH_PATH: Final = liveness_probe()["httpGet"]["path"]


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of a container that makes the kubelet end it."""

    # startup or liveness.
    name: str
    # How long it may fail.
    allowed_seconds: int
    # It is as the operator writes it.
    is_own: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A probe that failed, as an event of the pod says it."""

    container: str
    # startup or liveness.
    probe: str
    said: str
    first: str
    last: str
    # The kubelet ends the container for it.
    is_end: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container ended, and what its pod says about it."""

    pod: str
    container: str
    # Of the container in the pod patch.
    field: str
    # An init container that runs before the others, and is done when it ends.
    runs_once: bool
    # It is a sidecar, in initContainers with restartPolicy: Always.
    is_sidecar: bool
    image: str
    code: int
    # Number of the signal that ended it; 0: none.
    signal: int
    reason: str
    # Its last words.
    said: str
    started: str
    finished: str
    probes: tuple[Probe, ...]

    @property
    def may_be_by_probe(self) -> bool:
        """The kubelet sends SIGTERM and later SIGKILL. A container that ends in order when it gets SIGTERM ends with 0."""
        return bool(self.probes) and (self.signal in (SIGTERM, SIGKILL) or (not self.signal and self.code == 0))

    def explain(self, failures: Iterable[Failure] = ()) -> str:
        """Returns how it ended, why, and what to do, with what the pod's events say of its probes."""
        where = f"container {self.container} of pod {self.pod}"
        return f"{where} {'; '.join(self._parts(tuple(failures)))}; see kubectl logs {self.pod} -c {self.container} --previous"

    def _parts(self, failures: tuple[Failure, ...]) -> Iterator[str]:
        wrong = wrong_image(self.container, self.image, self.said)
        failed = self._failed_probe(failures)
        if self.reason == "OOMKilled":
            yield from self._out_of_memory()
        elif wrong is not None:
            yield f"ended with exit code {self.code}: {wrong}"
        elif failed is not None:
            yield from self._by_probe(*failed)
        elif self.code == 0 and not self.signal and self.container not in _OURS:
            yield from self._done()
        else:
            yield f"{self._how}{f': {self.said}' if self.said else ' and left no last words'}"
            yield from self._who_does_this()

    @property
    def _how(self) -> str:
        if self.signal:
            return f"was ended by {_signal(self.signal)}, exit code {self.code} ({self.reason})"
        return f"ended with exit code {self.code} ({self.reason})"

    def _out_of_memory(self) -> Iterator[str]:
        fields = {ENGINE_CONTAINER: "spec.engine.resources", SCHEDULER_CONTAINER: "spec.scheduling.resources"}
        yield "was killed for using more memory than its limit (OOMKilled)"
        yield f"raise {fields.get(self.container, f'{self.field}.resources')}.limits.memory"
        if self.said:
            yield f"its last words: {self.said}"

    def _failed_probe(self, failures: tuple[Failure, ...]) -> tuple[Probe, str] | None:
        """Returns which probe failed and in which words; None where nothing says that one did.

        A startup probe fails at every start until the server listens, so a failure of it alone says nothing.
        """
        if not self.may_be_by_probe:
            return None
        ours = [one for one in failures if one.container == self.container and self._ran_during(one)]
        ended_by = [one.probe for one in ours if one.is_end]
        if self.said.startswith(_WHILE_STARTING):
            ended_by.insert(0, "startup")
        if not ended_by and self.signal != SIGKILL:
            ended_by = [one.probe for one in ours if one.probe == "liveness"]
        probe = next((probe for name in ended_by for probe in self.probes if probe.name == name), None)
        if probe is None:
            return None
        return probe, next((one.said for one in ours if one.probe == probe.name and one.said), "")

    def _ran_during(self, failure: Failure) -> bool:
        return failure.last >= self.started and (not self.finished or failure.first <= self.finished)

    def _by_probe(self, probe: Probe, said: str) -> Iterator[str]:
        yield f"{self._how}: its {probe.name} probe failed{f' ({said})' if said else ''}, so the kubelet ended it"
        field = f"{self.field}.{_PROBES[probe.name]}"
        if probe.is_own:
            when = "the model takes longer to load" if probe.name == "startup" else "the engine works that long without an answer"
            yield f"the probe may fail for {_duration(probe.allowed_seconds)}; if {when}, raise {field}.failureThreshold"
        elif probe.name == "startup":
            default = f"; the operator's default allows {_duration(STARTUP_SECONDS)}" if self.container == ENGINE_CONTAINER else ""
            yield f"{field} allows {_duration(probe.allowed_seconds)}{default}: leave it out, or raise failureThreshold"
        else:
            answers = f"the engine answers GET {_HEALTH_PATH} on port {ENGINE_PORT}: " if self.container == ENGINE_CONTAINER else ""
            yield f"{answers}correct {field}, or leave it out"
        if self.said and not self.said.startswith(_WHILE_STARTING):
            yield f"its last words: {self.said}"

    def _done(self) -> Iterator[str]:
        instead = f"leave out restartPolicy of {self.field}" if self.is_sidecar else f"move it to {_PATCH}.initContainers"
        why = "its restartPolicy is Always" if self.is_sidecar else "a container listed under containers must keep running"
        yield f"ended with exit code 0, and Kubernetes keeps starting it again, because {why}. If it is to run once, {instead}"
        if self.said:
            yield f"its last words: {self.said}"

    def _who_does_this(self) -> Iterator[str]:
        after = f"after its {' or '.join(probe.name for probe in self.probes)} probe failed"
        if self.signal == SIGKILL:
            kubelet = f", and the kubelet {after}: kubectl describe pod {self.pod} says which" if self.probes else ""
            yield f"a node that is out of memory does this{kubelet}"
        elif self.may_be_by_probe:
            yield f"the kubelet ends a container so {after}: kubectl describe pod {self.pod} says which"


def wrong_image(container: str, image: str, said: str) -> str | None:
    """Returns what to do where a container of ours cannot start because its image is another one's; None where nothing shows that."""
    signs, part, field = _WRONG_IMAGE.get(container, ((), "", ""))
    if not signs or not any(sign in said for sign in (*signs, _INIT_MISSING)):
        return None
    return f"the image {words(image)} has no alise {part}; set {field} to an alise {part} image, or leave it out"


def is_success(ending: Ending) -> bool:
    """Whether the container has done what it was for."""
    return ending.runs_once and ending.code == 0 and not ending.signal


def view_ending(pod: Manifest, container: Mapping[str, Any], ended: Mapping[str, Any]) -> Ending:
    """Returns how a container of the pod ended, from its status."""
    name, code = str(container["name"]), ended.get("exitCode") or 0
    spec = pod.get("spec") or {}
    before = _named(name, spec.get("initContainers"))
    given = before or _named(name, spec.get("containers")) or {}
    is_sidecar = before is not None and before.get("restartPolicy") == "Always"
    return Ending(
        pod=pod["metadata"]["name"],
        container=name,
        field=f"{_PATCH}.{'containers' if before is None else 'initContainers'}[{name}]",
        runs_once=before is not None and not is_sidecar,
        is_sidecar=is_sidecar,
        image=str(container.get("image", "")),
        code=code,
        # A shell's convention, which container runtimes follow: 128 and the number of the signal.
        signal=ended.get("signal") or (code - 128 if 128 < code <= 128 + _SIGNALS else 0),
        reason=ended.get("reason", "Error"),
        said=clause(_last_sentence(ended.get("message") or "")),
        started=ended.get("startedAt") or "",
        finished=ended.get("finishedAt") or "",
        probes=tuple(
            Probe(probe, _allowed_seconds(given[field]), name == ENGINE_CONTAINER and _OWN_PROBES[probe].items() <= given[field].items())
            for probe, field in _PROBES.items()
            if given.get(field)
        ),
    )


def _named(name: str, containers: Sequence[Manifest] | None) -> Manifest | None:
    return next((one for one in containers or () if one.get("name") == name), None)


def view_failure(event: Manifest) -> Failure | None:
    """Returns which probe failed by an event of a pod; None when it is about something else."""
    said = event.get("message") or ""
    last = event.get("lastTimestamp") or event.get("eventTime") or ""
    first = event.get("firstTimestamp") or last
    if (end := _ENDED_BY_PROBE.match(said)) is not None:
        return Failure(end["container"], end["probe"], "", first, last, is_end=True)
    path = (event.get("involvedObject") or {}).get("fieldPath") or ""
    container = path.partition("{")[2].removesuffix("}")
    probe, _, why = said.partition(" probe failed: ")
    return Failure(container, probe.lower(), clause(why), first, last) if container and probe.lower() in _PROBES else None


def _allowed_seconds(probe: Mapping[str, Any]) -> int:
    """How long a probe may fail before the container is ended, with the defaults of Kubernetes."""
    return int((probe.get("initialDelaySeconds") or 0) + (probe.get("periodSeconds") or 10) * (probe.get("failureThreshold") or 3))


def _last_sentence(log: str) -> str:
    """Returns the sentence with which alise's engine ends, or the error that ends a Python program; all of a log that ends otherwise."""
    last = log.rstrip().rpartition("\n")[2]
    if last.startswith(_ENGINE_SAYS):
        return last
    _, found, after = log.rpartition(_TRACEBACK)
    lines = after.splitlines()
    # The frames are indented, and the error that follows them is not.
    frames = [index for index, line in enumerate(lines) if line.startswith(" ")]
    return "\n".join(lines[frames[-1] + 1 :]) or log if found and frames else log


def _duration(seconds: int) -> str:
    return "an hour" if seconds == 3600 else f"{seconds} s"


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({Signals(number).name})"
    except ValueError:
        return f"signal {number}"
