"""Explains how a container ended, why, and what to do about it.

Pure: observation.py calls `view_ending()`, and pods.py explains the ending again with the pod's events. The status of a container has its
exit code and its termination message, which is the end of its log. The pod's events, or the engine's own message, tell which probe failed.
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
# Linux has this many signals; an exit code above 128 plus this number is the program's own.
_SIGNALS: Final = 64
_OURS: Final = (ENGINE_CONTAINER, SCHEDULER_CONTAINER)
_ENGINE_SAYS: Final = "alise-engine: "
_TRACEBACK: Final = "Traceback (most recent call last):"
# The message of an engine that SIGTERM ended during its start.
_WHILE_STARTING: Final = "alise-engine: ended while it was starting"
# By container: the signs of an image without alise, what the image lacks, and the field that sets it.
_WRONG_IMAGE: Final[Mapping[str, tuple[tuple[str, ...], str, str]]] = {
    ENGINE_CONTAINER: (("No module named 'alise_engine'", '"alise-engine": executable file not found'), "engine", "spec.engine.image"),
    SCHEDULER_CONTAINER: (
        ("No module named 'alise_scheduler'", '"alise-scheduler": executable file not found'),
        "scheduler",
        "spec.scheduling.image",
    ),
}
# Both images run it as PID 1, so it is the first thing that another image lacks.
_INIT_MISSING: Final = '"tini": executable file not found'
# Reasons of a pod's events about probes, with their types: a probe failed; the kubelet stops a container because of it.
PROBE_EVENTS: Final = {"Unhealthy": "Warning", "Killing": "Normal"}
_ENDED_BY_PROBE: Final = re.compile(r"Container (?P<container>[-a-z0-9]{1,63}) failed (?P<probe>startup|liveness) probe, will be restarted")
_PROBES: Final = {"startup": "startupProbe", "liveness": "livenessProbe"}
# The probes of the engine that the user did not change.
_OWN_PROBES: Final = {"startup": startup_probe(), "liveness": liveness_probe()}
_HEALTH_PATH: Final = liveness_probe()["httpGet"]["path"]


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of a container whose failure makes the kubelet stop the container."""

    # startup or liveness.
    name: str
    # How long it may fail before the container is stopped.
    allowed_seconds: int
    # Whether it is the one that the operator generates.
    is_own: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed probe, from an event of the pod."""

    container: str
    # startup or liveness.
    probe: str
    message: str
    first: str
    last: str
    # Whether the kubelet stops the container because of it.
    is_end: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container ended, and what the status of its pod says about it."""

    pod: str
    container: str
    # The container's field in the pod patch.
    field: str
    # An init container that runs to completion before the others start.
    runs_once: bool
    # A sidecar: in initContainers, with restartPolicy: Always.
    is_sidecar: bool
    image: str
    code: int
    # Number of the signal that ended it; 0 if none did.
    signal: int
    reason: str
    # Its termination message.
    message: str
    started: str
    finished: str
    probes: tuple[Probe, ...]

    @property
    def may_be_by_probe(self) -> bool:
        """Whether a failed probe may be the cause: the kubelet sends SIGTERM, on which a container may exit with 0, and later SIGKILL."""
        return bool(self.probes) and (self.signal in (SIGTERM, SIGKILL) or (not self.signal and self.code == 0))

    def explain(self, failures: Iterable[Failure] = ()) -> str:
        """Returns how it ended, why, and what to do; `failures` are the pod's events about probes."""
        where = f"container {self.container} of pod {self.pod}"
        return f"{where} {'; '.join(self._parts(tuple(failures)))}; see kubectl logs {self.pod} -c {self.container} --previous"

    def _parts(self, failures: tuple[Failure, ...]) -> Iterator[str]:
        wrong = wrong_image(self.container, self.image, self.message)
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
            yield f"{self._how}{f': {self.message}' if self.message else ' and left no message'}"
            yield from self._who_does_this()

    @property
    def _how(self) -> str:
        if self.signal:
            return f"was terminated by {_signal(self.signal)}, exit code {self.code} ({self.reason})"
        return f"ended with exit code {self.code} ({self.reason})"

    def _out_of_memory(self) -> Iterator[str]:
        fields = {ENGINE_CONTAINER: "spec.engine.resources", SCHEDULER_CONTAINER: "spec.scheduling.resources"}
        yield "was killed for using more memory than its limit (OOMKilled)"
        yield f"raise {fields.get(self.container, f'{self.field}.resources')}.limits.memory"
        if self.message:
            yield f"its last message: {self.message}"

    def _failed_probe(self, failures: tuple[Failure, ...]) -> tuple[Probe, str] | None:
        """Returns which probe failed and its message; None if nothing shows that a probe failed.

        A startup probe fails at every start until the server listens, so its failure alone proves nothing.
        """
        if not self.may_be_by_probe:
            return None
        ours = [one for one in failures if one.container == self.container and self._ran_during(one)]
        ended_by = [one.probe for one in ours if one.is_end]
        if self.message.startswith(_WHILE_STARTING):
            ended_by.insert(0, "startup")
        if not ended_by and self.signal != SIGKILL:
            ended_by = [one.probe for one in ours if one.probe == "liveness"]
        probe = next((probe for name in ended_by for probe in self.probes if probe.name == name), None)
        if probe is None:
            return None
        return probe, next((one.message for one in ours if one.probe == probe.name and one.message), "")

    def _ran_during(self, failure: Failure) -> bool:
        return failure.last >= self.started and (not self.finished or failure.first <= self.finished)

    def _by_probe(self, probe: Probe, message: str) -> Iterator[str]:
        yield f"{self._how}: its {probe.name} probe failed{f' ({message})' if message else ''}, so the kubelet stopped it"
        field = f"{self.field}.{_PROBES[probe.name]}"
        if probe.is_own:
            when = "the model takes longer to load" if probe.name == "startup" else "the engine may take that long to answer"
            yield f"the probe may fail for {_duration(probe.allowed_seconds)}; if {when}, raise {field}.failureThreshold"
        elif probe.name == "startup":
            default = f"; the operator's default allows {_duration(STARTUP_SECONDS)}" if self.container == ENGINE_CONTAINER else ""
            yield f"{field} allows {_duration(probe.allowed_seconds)}{default}: leave it out, or raise failureThreshold"
        else:
            answers = f"the engine answers GET {_HEALTH_PATH} on port {ENGINE_PORT}: " if self.container == ENGINE_CONTAINER else ""
            yield f"{answers}correct {field}, or leave it out"
        if self.message and not self.message.startswith(_WHILE_STARTING):
            yield f"its last message: {self.message}"

    def _done(self) -> Iterator[str]:
        instead = f"leave out restartPolicy of {self.field}" if self.is_sidecar else f"move it to {_PATCH}.initContainers"
        why = "its restartPolicy is Always" if self.is_sidecar else "a container listed under containers must keep running"
        yield f"ended with exit code 0, and Kubernetes keeps restarting it, because {why}. If it should run once, {instead}"
        if self.message:
            yield f"its last message: {self.message}"

    def _who_does_this(self) -> Iterator[str]:
        after = f"after its {' or '.join(probe.name for probe in self.probes)} probe failed"
        if self.signal == SIGKILL:
            kubelet = f", or the kubelet {after} (kubectl describe pod {self.pod} says which)" if self.probes else ""
            yield f"the cause may be a node that is out of memory{kubelet}"
        elif self.may_be_by_probe:
            yield f"the kubelet stops a container in this way {after}: kubectl describe pod {self.pod} says which"


def wrong_image(container: str, image: str, message: str) -> str | None:
    """Returns what to do if a container of ours cannot start because its image has no alise in it; None if nothing shows that."""
    signs, part, field = _WRONG_IMAGE.get(container, ((), "", ""))
    if not signs or not any(sign in message for sign in (*signs, _INIT_MISSING)):
        return None
    return f"the image {words(image)} has no alise {part}; set {field} to an alise {part} image, or leave it out"


def is_success(ending: Ending) -> bool:
    """Returns whether the container ran to completion."""
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
        # Container runtimes follow the shell's convention: 128 plus the number of the signal.
        signal=ended.get("signal") or (code - 128 if 128 < code <= 128 + _SIGNALS else 0),
        reason=ended.get("reason", "Error"),
        message=clause(_last_sentence(ended.get("message") or "")),
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
    """Returns the failed probe in an event of a pod; None if the event is about something else."""
    message = event.get("message") or ""
    last = event.get("lastTimestamp") or event.get("eventTime") or ""
    first = event.get("firstTimestamp") or last
    if (end := _ENDED_BY_PROBE.match(message)) is not None:
        return Failure(end["container"], end["probe"], "", first, last, is_end=True)
    path = (event.get("involvedObject") or {}).get("fieldPath") or ""
    container = path.partition("{")[2].removesuffix("}")
    probe, _, why = message.partition(" probe failed: ")
    return Failure(container, probe.lower(), clause(why), first, last) if container and probe.lower() in _PROBES else None


def _allowed_seconds(probe: Mapping[str, Any]) -> int:
    """Returns how long a probe may fail before the container is stopped, with the defaults of Kubernetes."""
    return int((probe.get("initialDelaySeconds") or 0) + (probe.get("periodSeconds") or 10) * (probe.get("failureThreshold") or 3))


def _last_sentence(log: str) -> str:
    """Returns the last message of alise's engine, or the error at the end of a Python traceback; else the whole log."""
    last = log.rstrip().rpartition("\n")[2]
    if last.startswith(_ENGINE_SAYS):
        return last
    _, found, after = log.rpartition(_TRACEBACK)
    lines = after.splitlines()
    # The frames are indented, and the error after them is not.
    frames = [index for index, line in enumerate(lines) if line.startswith(" ")]
    return "\n".join(lines[frames[-1] + 1 :]) or log if found and frames else log


def _duration(seconds: int) -> str:
    return "an hour" if seconds == 3600 else f"{seconds} s"


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({Signals(number).name})"
    except ValueError:
        return f"signal {number}"
