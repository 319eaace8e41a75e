"""The fields of the AliseEngine that describe what an engine pod runs: model, engine, compute resources and KV offload.

spec.py joins these models with the others to one `Spec`. As there, a docstring of a field is its description in `kubectl explain`, and a
bound is checked by the API server and by the operator. Pure.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from alise_contract.adapters import MAX_ADAPTERS
from alise_operator.spec_adapters import Adapter, Lora
from alise_operator.spec_types import Opaque, Quantity, SecretKeyRef, ServedName, SpecModel, rule, rules
from alise_operator.spec_words import KUBERNETES_NAME, VARIABLE, WORD


class ModelCache(SpecModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.size) != has(self.claimName)",
                "the cache needs exactly one of size (the operator creates a claim) and claimName (an existing claim)",
            ),
            rule(
                "!has(self.claimName) || !has(self.storageClass)",
                "storageClass cannot be combined with claimName, because an existing claim already has a StorageClass",
            ),
        )
    )
    size: Quantity | None = None
    """Size of the PersistentVolumeClaim that the operator creates, in bytes, for example 100Gi. The claim is deleted together with the
    AliseEngine. Exactly one of size and claimName is required. Default: none."""
    storage_class: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)] | None = None
    """StorageClass of the claim that the operator creates. Default: the cluster's default StorageClass."""
    claim_name: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)] | None = None
    """Name of an existing PersistentVolumeClaim in the namespace of the AliseEngine. The operator never changes or deletes it. Exactly one
    of size and claimName is required. Default: none."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    """Access mode of the volume. ReadWriteMany lets replicas on several nodes share the cache. ReadWriteOnce allows one replica, and a
    rollout stops the old pod before it starts the new one. With claimName, this is the access mode of that claim."""


class Model(SpecModel):
    uri: Annotated[str, Field(min_length=1, max_length=1024, pattern=WORD)]
    """Model to serve: a Hugging Face repository such as Qwen/Qwen3-8B, or a path in the engine's image or in a volume, such as
    /models/tiny."""
    revision: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Branch, tag or commit of the Hugging Face repository. Default: the repository's default branch."""
    served_name: ServedName | None = None
    """Model name that clients send in `model`, and that responses and metrics show. Default: model.uri."""
    aliases: list[ServedName] = Field(default_factory=list, max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    """Further model names that clients may send in `model`, for example the name of a model that this one replaces. Default: none."""
    token_secret_ref: SecretKeyRef | None = None
    """Secret with the access token for Hugging Face. The engine receives it in the environment variable HF_TOKEN. Default: no token."""
    cache: ModelCache | None = None
    """Volume that keeps downloaded weights across restarts. Removing this field deletes the claim that the operator created for it.
    Default: no volume, so each pod downloads the weights into its scratch volume."""
    adapters: list[Adapter] = Field(
        default_factory=list,
        max_length=MAX_ADAPTERS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """LoRA adapters of the model, each a model name of its own. Running pods load and unload them without a restart, within about 90
    seconds. Only where LoRA was off, that is without adapters and without spec.model.lora, the first adapter restarts the pods. Default:
    none."""
    lora: Lora | None = None
    """Memory for LoRA adapters. `lora: {}` turns LoRA on before there are adapters. Default: on with adapters, and off without."""


def served_names(model: Model) -> list[str]:
    """Returns the names by which clients may ask for the model. Responses and metrics show the first one."""
    return [model.served_name or model.uri, *model.aliases]


class ResourceClaim(SpecModel):
    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of a claim in podTemplate.spec.resourceClaims."""
    request: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Name of one request of the claim. Default: all requests of the claim."""


class Resources(SpecModel):
    requests: dict[str, Quantity] = Field(default_factory=dict)
    """Minimum amount of each resource, as in a container of a pod. Default: none."""
    limits: dict[str, Quantity] = Field(default_factory=dict)
    """Maximum amount of each resource, as in a container of a pod. Default: none."""
    claims: list[ResourceClaim] = Field(
        default_factory=list, max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )
    """Devices by dynamic resource allocation, as in a container of a pod. Default: none."""


class EnvVar(SpecModel):
    name: Annotated[str, Field(min_length=1, max_length=253, pattern=VARIABLE)]
    """Name of the environment variable."""
    value: str | None = None
    """Value of the variable. Exactly one of value and valueFrom is required. Default: none."""
    value_from: Opaque | None = None
    """Source of the value, as in a container of a pod, for example a secretKeyRef. Default: none."""


class Engine(SpecModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.device != 'cpu' || self.kvCacheDtype in ['auto', 'fp8', 'fp8_e4m3', 'fp8_e5m2']",
                "kvCacheDtype must be one of auto, fp8, fp8_e4m3, fp8_e5m2 on device cpu",
            )
        )
    )
    device: Literal["cuda", "cpu"] = "cuda"
    """Type of device that runs the model."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Container image of the engine. Default: the operator's engine image for the device."""
    args: list[Annotated[str, Field(max_length=4096)]] = Field(default_factory=list, max_length=128)
    """Further flags of `vllm serve`. A flag and its value are two items, or one item with an equals sign:
    [--max-num-batched-tokens, 4k, --seed=7]. Default: none."""
    env: list[EnvVar] = Field(
        default_factory=list, max_length=128, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )
    """Further environment variables of the engine's container. Default: none."""
    resources: Resources = Field(default_factory=Resources)
    """Compute resources of the engine's container. A memory limit must cover the host KV store and the in-memory volumes. Without a memory
    limit, the operator sets that sum plus 64Gi for each device. On device cuda, the operator requests nvidia.com/gpu, tensorParallelSize of
    them, if neither an extended resource nor a claim is given."""
    scratch_size: Quantity | None = None
    """Size limit of the pod's scratch volume, in bytes, for example 100Gi. A pod that exceeds it is evicted. 0 means no limit. Default:
    256Gi if the weights are downloaded into the volume, 32Gi otherwise."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of devices of one replica."""
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """Maximum length of prompt and answer together, in tokens. Default: the model's own maximum."""
    max_num_seqs: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of requests that one replica runs at the same time. Default: vLLM's default for the device."""
    kv_cache_dtype: Annotated[str, Field(min_length=1, max_length=64)] = "auto"
    """Data type of the KV cache on the device. fp8 holds twice as many tokens as the 16 bits of auto in the same memory, and answers may
    differ slightly; the condition KVCacheShort says when it helps. Device cpu supports auto, fp8, fp8_e4m3 and fp8_e5m2, on CPUs with
    AVX-512 or AMX. Device cuda supports the values of vLLM's --kv-cache-dtype."""
    rollout: Literal["surge", "replace"] = "surge"
    """Rollout strategy. `surge` starts the new pod before stopping the old one and needs capacity for one extra pod. `replace` stops the
    old pod first, for clusters whose GPUs are all in use."""


class KvOffload(SpecModel):
    host_memory: Quantity | None = None
    """Host memory of one pod for the KV caches of preempted requests, in bytes, over all devices of the pod, for example 16Gi. 0 means that
    preempted requests are recomputed, which hybrid and sliding-window models such as gpt-oss, Gemma and Qwen-Next require. Default: the
    size of the KV cache on the devices, at most 8Gi for each device and a quarter of the container's memory."""
    quantization: Literal["auto", "int8", "none"] = "auto"
    """Format of KV caches in host memory. none: exact. int8: about half the size. auto: int8 under memory pressure."""
