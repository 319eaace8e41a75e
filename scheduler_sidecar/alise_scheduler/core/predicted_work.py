"""The work of requests in the time of a pod that is fully busy: what autoscalers read. Pure; `decide.py` and `estimate.py` call it.

The work of ranking (`CostModel.work_seconds`) is the time of one slot at the present pace. It says when a job would end, but not how much
of the pod it takes: a prompt is computed for one job alone, and a step costs more the more jobs share it. Here each job counts with the
time that the pod spends on it while all slots, or all of the KV memory, are in use. These times add up: their sum is the time to serve all
jobs, and the sum over the arrivals of a second is the share of a pod that they keep busy. core/exec_time.py measures the coefficients.
"""

import numpy as np

from .exec_time import Coefficients
from .lengths import Number
from .reports import EngineShape


def pod_seconds(cost: Coefficients, engine: EngineShape, prefill_tokens: Number, tokens_left: Number, context_tokens: Number) -> Number:
    """Seconds of a full pod for one answer, or for columns of them.

    An answer pays for its prefill, and for each token its own part of a step. It shares the fixed part of the step with the others: with as
    many as there are slots, or with fewer if KV caches as large as its own fill the memory.
    """
    tokens = context_tokens + tokens_left / 2
    room = max(1, engine.num_device_blocks * engine.block_size)
    share: Number = np.clip(tokens / room, 1 / max(1, engine.max_num_seqs), 1.0)
    token_seconds = cost.step_seconds * share + cost.decode_seconds + cost.context_seconds * tokens
    return cost.prefill_seconds * prefill_tokens + tokens_left * token_seconds
