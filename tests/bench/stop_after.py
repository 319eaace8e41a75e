"""A vLLM logits processor that ends an answer after the number of tokens its request names, with the end-of-sequence token.

So a benchmark replays real answer lengths on a model whose text is noise, and only the engine knows them: the scheduler sees an
answer that ended by itself (a length cap would give the length away in advance). `serving_processes.py` names it to vLLM.
"""

import json
from pathlib import Path
from typing import Any

import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from tests.bench.workload import STOP_AFTER


class StopAfter(AdapterLogitsProcessor):
    """`--logits-processors tests.bench.stop_after:StopAfter`."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        config = json.loads((Path(vllm_config.model_config.model) / "generation_config.json").read_text())
        ends = config["eos_token_id"]
        self._ends = [ends] if isinstance(ends, int) else list(ends)

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        wanted = (params.extra_args or {}).get(STOP_AFTER)
        if wanted is None:
            return None
        tokens, ends = int(wanted), self._ends

        def process(output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
            if len(output_ids) + 1 < tokens:
                logits[ends] = float("-inf")
            else:
                logits.fill_(float("-inf"))
                logits[ends[0]] = 0.0
            return logits

        return process
