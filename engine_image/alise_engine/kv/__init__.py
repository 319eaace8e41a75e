"""Keeps KV of preempted requests on the host. `connector.py` is what vLLM calls, and `ledger.py` decides which blocks stay.

`work.py` holds the instructions to the workers; `worker.py`, `copies.py` and `staged.py` carry them out. The bytes are in `host_pool.py`,
`host_memory.py` and `slabs.py`, and their encoding in `int8.py` and `fused_int8.py`.
"""
