"""The conditions of an AliseEngine and all reasons that they can have, with what each means and what to do; pure data.

status.py and route_ready.py take the order of Degraded's reasons from here, and crd.py the types. The reference page of the documentation
is generated from the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from alise_operator.conditions import Truth

# Each type, and what it means that its status is True.
TYPES: Final[Mapping[str, str]] = {
    "Ready": (
        "At least one pod serves requests inside the cluster. A mistake in the spec or a missing route does not make it False while pods "
        "of the last valid spec serve."
    ),
    "Progressing": "A change is in progress and finishes without help. It is False while something blocks the rollout.",
    "Degraded": "Something is wrong, whether or not requests are served.",
    "RouteReady": "Requests from outside the cluster can reach the pods.",
    "KVCacheShort": (
        "Requests wait for KV memory although slots are free. Nothing is wrong, but requests would be served sooner with more KV memory."
    ),
    "AutoscalingActive": (
        "The number of pods follows the predicted work. Only resources with `spec.autoscaling` have this condition. Its message ends with "
        "the last step and the reason for it."
    ),
}


@dataclass(frozen=True, slots=True)
class Reason:
    name: str
    meaning: str
    remedy: str = ""


# The spec could not be applied, so the children of the last valid spec stay.
UNAPPLIED: Final = (
    Reason("InvalidSpec", "A field has a value that is not allowed.", "Correct the field that the message names."),
    Reason(
        "MissingApi",
        "The cluster does not serve a kind that the resource needs.",
        "Install the API. The operator looks for it again every 15 seconds.",
    ),
    Reason(
        "ApplyFailed",
        "The cluster refused an object of the resource.",
        "The message names the field that the object follows from and quotes the API server.",
    ),
    Reason(
        "NameTaken",
        "An object with the name of a child exists and does not belong to the resource.",
        "Rename or delete the object, or rename the resource.",
    ),
    Reason(
        "ClusterUnavailable",
        "The API server, or one of its webhooks, failed.",
        "The operator tries again. Repair the webhook if the message names one.",
    ),
    Reason("InternalError", "The operator has a bug.", "Report it together with the operator's log."),
)
# A route that leads nowhere; the most severe first.
ROUTE: Final = (
    Reason("HostTaken", "An older Ingress or HTTPRoute has the same host with the path `/v1`.", "Use another host."),
    Reason(
        "RouteNotAllowed",
        "The Gateway admits no routes from this namespace, so the HTTPRoute is not created.",
        "Change `allowedRoutes` of a listener, or use another Gateway.",
    ),
    Reason("MissingGateway", "The Gateway does not exist.", "Create it, or correct `spec.route.parentRef`."),
    Reason("MissingGatewayClass", "The GatewayClass of the Gateway does not exist.", "Install the Gateway's controller."),
    Reason("MissingIngressClass", "The IngressClass does not exist.", "Use one of the classes that the message lists."),
    Reason(
        "NoIngressClass",
        "The resource names no IngressClass, and the cluster has no default one.",
        "Set `spec.route.className` to one of the classes that the message lists.",
    ),
    Reason("RouteRefused", "The Gateway refuses the HTTPRoute.", "The message quotes the Gateway and says what to change."),
    Reason("RouteUnresolved", "The Gateway cannot resolve what the HTTPRoute points to.", "The message quotes the Gateway."),
    Reason("NoController", "No controller answers for the Gateway.", "`kubectl describe gateway` shows its state."),
)
# In the order in which one of them becomes Degraded's reason; the message holds all of them.
TROUBLES: Final = (
    Reason(
        "MissingSecret",
        "A pod waits for a Secret, or for a key in one.",
        "The message names the field that asks for it and the command that creates it.",
    ),
    Reason("ImagePull", "An image cannot be pulled.", "The message quotes the kubelet. Check the image's name and the pull secrets."),
    Reason("PodsCrashing", "A container ended, or a probe failed.", "The message quotes the last message of the container."),
    Reason("Unschedulable", "No node can run the pod.", "The message quotes the Kubernetes scheduler and says what the pod requests."),
    Reason("PodNotStarting", "A container cannot be created.", "The message quotes the kubelet and names the field to change."),
    Reason("PodsRefused", "The cluster refuses to create pods, for example because of a quota.", "The message quotes the refusal."),
    Reason("Stalled", "A rollout made no progress for over an hour.", "The message says what blocks it."),
    Reason("ContractMismatch", "Engine, scheduler and operator belong to different releases.", "Use images of the same release."),
    Reason(
        "SidecarDown",
        "A pod's scheduler had no plan at two polls in a row, so its requests are served in order of arrival.",
        "`kubectl logs POD -c scheduler`",
    ),
    Reason(
        "FailingOpen",
        "At least three requests, and 5% of all, were not ranked during the last minute.",
        "The message says why. Often the scheduler needs more CPU.",
    ),
    Reason(
        "StatusUnavailable",
        "A ready pod did not answer at `/alise/v1/status` at two polls in a row.",
        "The message says what came instead. If nothing came, let the operator reach the pods on port 8000.",
    ),
    Reason(
        "NoApiKeys",
        "The Secret of `spec.auth.secretRef` contains no API key, so every request is rejected.",
        "Add an entry for each tenant to the Secret.",
    ),
    Reason(
        "AdapterNotLoaded",
        "A pod could not load a LoRA adapter of `spec.model.adapters`. Everything else is served.",
        "The message says why. Correct the adapter's `uri` or its files; the pod tries again by itself.",
    ),
    *ROUTE,
    Reason(
        "MissingTlsSecret",
        "The Ingress names a certificate that does not exist. Only an operator that may read Secrets can see this.",
        "Wait for cert-manager, or create the Secret with the command in the message.",
    ),
    Reason(
        "PickerUnavailable",
        "The endpoint picker has no ready pod, or does not tell the operator how many requests it holds. Gateways balance without it.",
        "The message says what keeps its pod from being ready. The operator must reach its port 9600.",
    ),
    Reason(
        "HostMemoryFull",
        "The host store for KV is full, so preempted requests are recomputed.",
        "Raise `spec.kvOffload.hostMemory`, or, without an 8-bit KV cache, set `spec.kvOffload.quantization: int8`.",
    ),
    Reason(
        "PredictorWithoutEncoder",
        "A pod's predictor has no sentence encoder, so it predicts lengths from features alone.",
        "Check `spec.predictor.encoder`; `kubectl logs POD -c scheduler` says why the encoder cannot be used.",
    ),
)
# Reasons of the other conditions, and of Degraded when nothing is wrong, by type and status. Beside them, a condition that is not True can
# have a reason of Degraded.
OTHERS: Final[Mapping[tuple[str, Truth], tuple[Reason, ...]]] = {
    ("Ready", "True"): (
        Reason("Serving", "Pods with the current spec serve requests."),
        Reason(
            "ServingOldSpec",
            "Only pods with an older spec serve requests: newer pods are starting, or the newest spec cannot be applied.",
        ),
    ),
    ("Ready", "False"): (
        Reason("Starting", "No pod is ready yet."),
        Reason("Suspended", "`spec.suspend` is true."),
        Reason("ScaledToZero", "`spec.replicas` is 0, or no request came and `spec.autoscaling.minReplicas` is 0."),
    ),
    ("Progressing", "True"): (
        Reason("Applying", "The Deployment controller has not seen the newest spec yet."),
        Reason("RollingOut", "Pods with the current spec are replacing older ones."),
        Reason("Starting", "Pods are starting."),
        Reason("Draining", "Pods finish their open requests before they stop."),
        Reason("Stopping", "Pods that served no request yet are stopping."),
        Reason("LoadingAdapters", "Pods are loading or unloading LoRA adapters. Nothing restarts."),
    ),
    ("Progressing", "False"): (Reason("Complete", "There is nothing left to do."),),
    ("Degraded", "False"): (Reason("AsExpected", "Nothing is wrong."),),
    ("RouteReady", "True"): (
        Reason("Accepted", "The Gateway has accepted the HTTPRoute, or the Ingress has an address."),
        Reason("Applied", "The Ingress exists, and its class does. Many controllers never report an address."),
        Reason("NoRoute", "`spec.route.type` is None, so clients reach the pods only inside the cluster."),
    ),
    ("RouteReady", "Unknown"): (Reason("Pending", "The controller has not answered yet."),),
    ("KVCacheShort", "True"): (Reason("KVCacheFull", "KV memory is the limit.", "The message gives the figures and says what to change."),),
    ("KVCacheShort", "False"): (Reason("EnoughRoom", "Requests seldom wait for KV memory."),),
    ("KVCacheShort", "Unknown"): (
        Reason("Measuring", "Pods have not reported for long enough."),
        Reason("NoReports", "No pod reports its KV cache."),
    ),
    ("AutoscalingActive", "True"): (
        Reason("FollowsWork", "The operator sets `spec.replicas`."),
        Reason("ScaledByKEDA", "KEDA sets `spec.replicas`, by the same figures. `kubectl describe scaledobject NAME` says how."),
        Reason("PodsStarting", "Pods are starting. Until they are ready, the backlog adds no further pods."),
        Reason("ScaledToZero", "No request came for `spec.autoscaling.idleSeconds`. A held request starts a pod."),
        Reason(
            "AtMaximum",
            "The work needs more pods than `spec.autoscaling.maxReplicas`.",
            "Raise it, or [reject requests that would wait for too long](../how-to/tune.md).",
        ),
    ),
    ("AutoscalingActive", "False"): (
        Reason("Paused", "A user set `spec.replicas` to 0.", "`kubectl scale alise NAME --replicas=1` resumes autoscaling."),
        Reason(
            "ScaleFailed",
            "`spec.replicas` could not be set. The operator tries again.",
            "The message quotes the API server. A conflict with another change passes by itself.",
        ),
        Reason(
            "KedaSilent",
            "KEDA scales, and has not asked the operator for the predicted work for two minutes. The number of pods stays as it is.",
            "`kubectl describe scaledobject NAME` says why. KEDA must reach port 9501 of the operator and trust its certificate: "
            "[With KEDA](../how-to/autoscaling.md#with-keda).",
        ),
        Reason("Suspended", "`spec.suspend` is true."),
        Reason("InvalidSpec", "The spec is not valid, so the replicas stay as they are."),
    ),
    ("AutoscalingActive", "Unknown"): (
        Reason(
            "WorkUnknown",
            "A ready pod does not report its predicted work, so pods are added but not removed.",
            "Degraded says what is wrong with the pod. Otherwise use images of the operator's release.",
        ),
        Reason(
            "PickerSilent",
            "There are no pods, and the endpoint picker does not say whether it holds a request. After a minute of this a pod starts.",
            "`kubectl get pods -l alise.dev/picker` shows the picker. The operator must reach its port 9600.",
        ),
    ),
}
# Events that follow from no condition.
EVENTS: Final = (
    Reason(
        "ReplicasReset",
        "Something else than the operator changed the number of replicas of the Deployment, and the operator set it back.",
        "Let autoscalers target the AliseEngine instead of its Deployment.",
    ),
    Reason(
        "ChildRestored",
        "Something else than the operator changed or deleted an object of the resource, and the operator restored it. The message names "
        "the fields.",
        "Change the field of the AliseEngine that the message names. What others add beside the operator's fields stays.",
    ),
    Reason("ScaledUp", "The autoscaler added pods. The message says why."),
    Reason("ScaledDown", "The autoscaler removed pods. The message says why."),
)
