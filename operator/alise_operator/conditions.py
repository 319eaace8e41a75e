"""A condition of the status of an AliseEngine, as a value.

status.py, route_ready.py, kv_cache.py and scaling_condition.py create them; events.py posts some.
"""

from dataclasses import dataclass
from typing import Literal

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: Truth
    reason: str
    message: str
