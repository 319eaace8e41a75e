"""What is wrong with a pod according to its own status report: no plans, requests without a rank, a full host store, no API keys.

Pure. status.py calls `reported_troubles()` and makes the results part of the condition Degraded; polls.py has counted how many polls in a
row found the same. What the cluster says about a pod (crashes, images, scheduling) is in observation.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from alise_contract.names import CONTRACT_VERSION
from alise_contract.quantities import format_bytes
from alise_operator.observation import Pod, PodReport, Trouble

# Requests of the last minute that were admitted without a rank: this number and this share are not caused by a single slow step.
FAILED_OPEN_REQUESTS: Final = 3
FAILED_OPEN_SHARE: Final = 0.05
# A scheduler that is down at one poll may be starting, or its supervisor may have restarted it; at two polls in a row it is down.
SIDECAR_DOWN_POLLS: Final = 2
# Why requests were admitted without a rank, and what to do, in the order of the message. The breaker opens after other failures, so it is
# last.
FAILED_OPEN_ADVICE: Final[Mapping[str, str]] = {
    "deadline": "the scheduler answers too late, give it more CPU in spec.scheduling.resources",
    "unavailable": "the scheduler cannot be reached, see kubectl logs {pod} -c scheduler",
    "version": "the scheduler is of another release, use images of the same release",
    "error": "the scheduler answers with errors, see kubectl logs {pod} -c scheduler",
    "breaker_open": "after repeated failures the scheduler is asked only occasionally, see kubectl logs {pod} -c scheduler",
}


def reported_troubles(pods: Sequence[Pod]) -> Iterator[Trouble]:
    """Yields what the pods report as wrong, and each pod whose report could not be read. Pods that are being deleted do not count."""
    for pod in pods:
        if pod.terminating:
            continue
        if pod.report_error is not None:
            yield Trouble("StatusUnavailable", f"pod {pod.name}: {pod.report_error}")
        if pod.report is not None:
            yield from _of_report(pod, pod.report)


def _of_report(pod: Pod, report: PodReport) -> Iterator[Trouble]:
    name, mismatch = pod.name, _mismatch(report)
    if mismatch is not None:
        yield Trouble("ContractMismatch", f"pod {name}: {mismatch}; use engine, scheduler and operator images of the same release")
    elif not report.is_ranked and pod.unranked_polls >= SIDECAR_DOWN_POLLS:
        yield Trouble(
            "SidecarDown",
            f"pod {name}: the scheduler container {'sends no plans' if report.sidecar_connected else 'is not connected'}; requests run "
            f"first come, first served; kubectl logs {name} -c scheduler says why, for example that memory is short",
        )
    if _is_failing_open(report):
        yield Trouble("FailingOpen", f"pod {name}: many requests of the last minute were admitted without a rank: {_why_failed_open(pod)}")
    if pod.host_full:
        yield Trouble(
            "HostMemoryFull",
            f"pod {name}: the host KV store of {format_bytes(report.host_limit_bytes)} is full, so preempted requests are recomputed; "
            "raise spec.kvOffload.hostMemory, or set spec.kvOffload.quantization to int8",
        )
    if report.lacks_api_keys:
        yield Trouble(
            "NoApiKeys",
            f"pod {name}: the Secret of spec.auth.secretRef contains no API key, so every request is rejected; add one entry per tenant "
            "with the tenant's keys, one per line",
        )
    if report.is_ranked and report.encoder_missing:
        yield Trouble(
            "PredictorWithoutEncoder",
            f"pod {name}: the predictor has no sentence encoder that works, so it orders requests less well; check spec.predictor.encoder "
            f"and kubectl logs {name} -c scheduler",
        )


def _mismatch(report: PodReport) -> str | None:
    """Returns which part uses which contract version. A scheduler that refuses the engine may not report its own version."""
    if report.contract_version != CONTRACT_VERSION:
        return f"the engine uses contract version {report.contract_version}, this operator uses version {CONTRACT_VERSION}"
    if not report.contract_refused:
        return None
    if report.refused_contract_version:
        return f"the scheduler uses contract version {report.refused_contract_version}, the engine uses version {report.contract_version}"
    return f"the scheduler does not support the engine's contract version {report.contract_version}"


def _why_failed_open(pod: Pod) -> str:
    known = [reason for reason in FAILED_OPEN_ADVICE if reason in pod.failed_open_reasons]
    other = [reason for reason in pod.failed_open_reasons if reason not in FAILED_OPEN_ADVICE]
    explained = [f"{reason} ({FAILED_OPEN_ADVICE[reason].format(pod=pod.name)})" for reason in known]
    return ", ".join([*explained, *other]) or "the reason will be known after the next poll"


def _is_failing_open(report: PodReport) -> bool:
    enough = report.recent_failed_open >= FAILED_OPEN_REQUESTS
    return enough and report.recent_failed_open >= FAILED_OPEN_SHARE * report.recent_requests
