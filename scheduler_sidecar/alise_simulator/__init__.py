"""A tool of users: replays traces of requests through the sidecar's decisions on simulated engines, without a GPU.

`python -m alise_simulator --help` says how. It imports `alise_scheduler.core` and nothing else of the rooms. No room imports
it and no image holds it; benchmarks and tests import it.
"""
