"""Whether the pods serve LoRA adapters, with which flags, and the rules of adapters and of the model's names; pure.

rules.py calls `alias_problems()` and `adapter_problems()`, and children/ build the flags and the list from the rest.
"""

import re
from collections.abc import Iterator
from typing import Final

from alise_contract import adapters as contract
from alise_operator.errors import Problem
from alise_operator.flags import given_flags
from alise_operator.sentences import quote
from alise_operator.spec import Spec
from alise_operator.spec_adapters import Lora
from alise_operator.spec_engine import Model, served_names

# With it, every client may load adapters from any path and any repository.
RUNTIME_LOADING_ENV: Final = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][-._A-Za-z0-9]*/[A-Za-z0-9][-._A-Za-z0-9]*")
# Flags that the fields determine.
LORA_FLAGS: Final = {
    "enable-lora": "spec.model.lora",
    "lora-modules": "spec.model.adapters",
    "max-lora-rank": "spec.model.lora.maxRank",
    "max-loras": "spec.model.lora.maxActive",
    "max-cpu-loras": "spec.model.adapters",
}


def lora(model: Model) -> Lora | None:
    """Returns the settings of LoRA; None if it is off."""
    return model.lora or (Lora() if model.adapters else None)


def listed(model: Model) -> list[contract.Adapter]:
    """Returns the adapters as the pods read them."""
    return [contract.Adapter(one.name, one.uri, one.revision or "") for one in model.adapters]


def lora_args(model: Model) -> list[str]:
    """Returns the flags of `vllm serve`. They do not depend on the list, so that a change of the list restarts nothing."""
    settings = lora(model)
    if settings is None:
        return []
    # Weights of all adapters fit into host memory: otherwise vLLM would read them from disk between two steps.
    kept = max(contract.MAX_ADAPTERS, settings.max_active)
    return [
        *("--enable-lora", "--max-lora-rank", str(settings.max_rank)),
        *("--max-loras", str(settings.max_active), "--max-cpu-loras", str(kept)),
    ]


def alias_problems(spec: Spec) -> Iterator[Problem]:
    names = served_names(spec.model)
    for index, alias in enumerate(spec.model.aliases):
        if alias in names[: index + 1]:
            own = "spec.model.uri" if spec.model.served_name is None else "spec.model.servedName"
            first = names.index(alias)
            already = f"spec.model.aliases[{first - 1}]" if first else own
            yield Problem(f"spec.model.aliases[{index}]", f"{alias!r} is already {already}; remove it")


def adapter_problems(spec: Spec) -> Iterator[Problem]:
    if lora(spec.model) is None:
        return
    for index, name, _ in given_flags(spec.engine.args):
        if name in LORA_FLAGS:
            yield Problem(f"spec.engine.args[{index}]", f"--{name} is set here, and LoRA by spec.model; use {LORA_FLAGS[name]}")
    for index, variable in enumerate(spec.engine.env):
        if variable.name == RUNTIME_LOADING_ENV and variable.value not in ("", "0", "false", "False"):
            yield Problem(
                f"spec.engine.env[{index}]",
                f"{RUNTIME_LOADING_ENV} lets every client load adapters, and spec.model.adapters lists them; leave it out",
            )
    served, seen = served_names(spec.model), set[str]()
    for index, adapter in enumerate(spec.model.adapters):
        field = f"spec.model.adapters[{index}]"
        if adapter.name in served:
            yield Problem(f"{field}.name", f"{adapter.name!r} is a name of the model itself; use another name for the adapter")
        if adapter.name in seen:
            yield Problem(f"{field}.name", f"{adapter.name!r} is listed twice")
        seen.add(adapter.name)
        is_path = adapter.uri.startswith("/")
        if not is_path and not _REPOSITORY.fullmatch(adapter.uri):
            yield Problem(
                f"{field}.uri",
                f"{quote(adapter.uri)} is neither a Hugging Face repository such as org/adapter nor a path that begins with /",
            )
        if is_path and adapter.revision is not None:
            yield Problem(f"{field}.revision", f"{quote(adapter.revision)} is allowed only with a Hugging Face repository; remove it")
