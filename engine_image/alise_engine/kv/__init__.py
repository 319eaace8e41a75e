"""Keeps KV of preempted requests on the host: place (ledger), encoding (int8), bytes (host_pool), transfer (connector)."""
