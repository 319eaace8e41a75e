"""The fields of the AliseEngine that describe its LoRA adapters. spec_engine.py makes them part of the model; adapter_rules.py checks them.

As in spec.py, a docstring of a field is its description in `kubectl explain`, and a bound is checked by the API server and by the operator.
Pure.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from alise_operator.spec_types import SpecModel, rule, rules
from alise_operator.spec_words import ADAPTER_NAME, WORD


class Adapter(SpecModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("!has(self.revision) || !self.uri.startsWith('/')", "revision is allowed only with a Hugging Face repository"),
        )
    )
    name: Annotated[str, Field(min_length=1, max_length=63, pattern=ADAPTER_NAME)]
    """Model name that clients send in `model` to ask for the adapter."""
    uri: Annotated[str, Field(min_length=1, max_length=1024, pattern=WORD)]
    """Files of the adapter: a Hugging Face repository such as org/support-lora, or a path in the engine's image or in a volume, such as
    /adapters/support. An adapter has the files adapter_config.json and adapter_model.safetensors, as PEFT saves them."""
    revision: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Branch, tag or commit of the Hugging Face repository. Default: the repository's default branch."""


class Lora(SpecModel):
    max_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16
    """Highest rank of an adapter, that is the number of dimensions of its matrices. Memory is reserved on the device for this rank,
    whatever the ranks of the adapters. Changing it restarts the pods."""
    max_active: Annotated[int, Field(ge=1, le=32)] = 4
    """Number of adapters whose requests one replica runs at the same time. Memory is reserved on the device for each of them. Requests of
    further adapters wait. Changing it restarts the pods."""
