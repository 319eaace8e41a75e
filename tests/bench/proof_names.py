"""The names, colours and markers of systems, profiles and data sets in the report.

`proof_page.py`, `proof_pictures.py` and `proof_served.py` read them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

FCFS: Final = "stock-fcfs"
PRIORITY: Final = "stock-priority"
ALISE: Final = "alise"
# The profile, and the data sets, of the first picture.
MAIN_PROFILE: Final = "h100-qwen3-32b"
MAIN_DATA: Final = ("alpaca", "sharegpt")


@dataclass(frozen=True, slots=True)
class System:
    """How a system is named and drawn. Colours are of Okabe and Ito's palette, which colour-blind readers can tell apart."""

    title: str
    color: str
    dark: str
    marker: str
    dashes: tuple[float, ...] = ()


SYSTEMS: Final = {
    FCFS: System("stock vLLM, first come, first served", "#5a5a5a", "#b4b4b4", "s", (4, 2)),
    PRIORITY: System("stock vLLM, priority from our predictions", "#b34a00", "#f0883e", "^", (1, 1)),
    "stock-priority-true": System("stock vLLM, priority from true lengths", "#94307e", "#dd8fc8", "v", (1, 1)),
    ALISE: System("alise", "#0060a8", "#56b4e9", "o"),
    "alise-true": System("alise with true lengths", "#00795a", "#2fc496", "D"),
    "alise-no-prediction": System("alise without predictions: every request looks the same", "#0060a8", "#56b4e9", "X"),
    "alise-no-history": System("alise with the predictor as shipped, which never learns", "#0060a8", "#56b4e9", "X"),
    "alise-no-preemption": System("alise without preemption by rank", "#0060a8", "#56b4e9", "X"),
    "alise-no-host-store": System("alise without the host store: preempted requests are recomputed", "#0060a8", "#56b4e9", "X"),
    "alise-no-int8": System("alise with 16 bits in the host store", "#0060a8", "#56b4e9", "X"),
    "srpt": System("shortest remaining time first, true lengths, waits unbounded", "#7a6a00", "#e0cc40", "P", (2, 1)),
    "mlfq": System("feedback queues without predictions", "#7a6a00", "#e0cc40", "P", (2, 1)),
    "alise-always-preempts": System("alise that always preempts by rank", "#0060a8", "#56b4e9", "X"),
    "alise-full-host": System("alise with as much host memory as there is KV memory", "#0060a8", "#56b4e9", "X"),
    "alise:boost": System("boost without lateness: γ-Boost with ageing that follows the backlog", "#0060a8", "#56b4e9", "X"),
    "alise:refusing": System("alise that refuses predicted waits of more than a minute", "#0060a8", "#56b4e9", "X"),
    "alise:before": System("boost without lateness, the earlier default", "#0060a8", "#56b4e9", "X"),
    "alise:alise": System("the paper's rule: shortest remaining work, with ageing", "#0060a8", "#56b4e9", "X"),
    "alise:gittins": System("Gittins index, waits unbounded", "#0060a8", "#56b4e9", "X"),
    "alise:gittins-ageing": System("Gittins index with ageing and lateness", "#0060a8", "#56b4e9", "X"),
    "alise:sjf": System("shortest predicted job first, blind to progress", "#0060a8", "#56b4e9", "X"),
    "alise:oldest-12": System("Gittins index, 12% of the slots for the oldest requests", "#0060a8", "#56b4e9", "X"),
    "alise:oldest-25": System("Gittins index, 25% of the slots for the oldest requests", "#0060a8", "#56b4e9", "X"),
    "alise:size-ageing": System("Gittins index, ageing in proportion to the request's size", "#0060a8", "#56b4e9", "X"),
    "alise:deadline": System("boost with deadlines, waits unbounded", "#0060a8", "#56b4e9", "X"),
}
SHORT: Final = {FCFS: "stock", PRIORITY: "stock priority", ALISE: "alise"}
# The systems that take a part of alise away, or give it what it cannot know.
ABLATIONS: Final = (
    FCFS, PRIORITY, "stock-priority-true", ALISE, "alise-true", "alise-no-prediction", "alise-no-history", "alise-no-preemption",
    "alise-no-host-store", "alise-no-int8", "alise-full-host", "alise-always-preempts",
)  # fmt: skip
# The systems that a missed figure is computed for again: what each part costs or gives, and what orders without a bound reach.
BESIDE_MISSES: Final = (*ABLATIONS[1:3], *ABLATIONS[4:], "alise:gittins", "alise:deadline")
PROFILES: Final = {
    "h100-qwen3-32b": "Qwen3-32B on one H100 80 GB", "a100-qwen3-8b": "Qwen3-8B on one A100 40 GB", "h200-qwen3-8b": "Qwen3-8B on one H200",
    "h100x4-llama-70b": "Llama-3.1-70B on four H100 80 GB", "l40s-llama-8b": "Llama-3.1-8B on one L40S 48 GB",
    "rtx4090-llama-8b": "Llama-3.1-8B on one RTX 4090 24 GB", "v100-opt-13b": "OPT-13B on one V100 32 GB, derived",
    "slots32": "32 slots and KV memory to spare",
}  # fmt: skip
DATA: Final = {
    "alpaca": "Alpaca", "sharegpt": "ShareGPT", "equal": "answers of equal length", "azure2023_conv": "Azure 2023, conversation",
    "azure2023_code": "Azure 2023, code", "mooncake_conversation": "Mooncake, conversation", "heavy-tail": "synthetic, heavy tail",
}  # fmt: skip
_OTHER: Final = System("", "#0060a8", "#56b4e9", "X")


def system(key: str) -> System:
    """Returns how the system is drawn; a key without an entry keeps its own name."""
    return SYSTEMS.get(key) or System(key, _OTHER.color, _OTHER.dark, _OTHER.marker)


def in_order(keys: Iterable[str]) -> list[str]:
    """Returns each key once: the ones with an entry first, in its order, then the others by name."""
    known = list(SYSTEMS)
    return sorted(set(keys), key=lambda key: (known.index(key) if key in known else len(known), key))


def rules(keys: Iterable[str]) -> dict[str, int]:
    """Returns the number that each rule has in the picture of all rules; what takes a part of alise away is none."""
    return {key: number for number, key in enumerate((key for key in in_order(keys) if not key.startswith("alise-no-")), 1)}


def profile(key: str) -> str:
    """Returns the model and the device of a profile; a key without an entry keeps its own name."""
    return PROFILES.get(key, key)


def data(key: str) -> str:
    """Returns the name of a data set; a key without an entry keeps its own name."""
    return DATA.get(key, key)


def profiles_in_order(keys: Iterable[str]) -> list[str]:
    """Returns each profile once, in the order above."""
    known = list(PROFILES)
    return sorted(set(keys), key=lambda key: (known.index(key) if key in known else len(known), key))
