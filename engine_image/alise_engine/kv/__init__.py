"""KV cache of preempted requests: where it is (ledger), how it is written (int8), who holds it (host_pool), how it moves (connector)."""
