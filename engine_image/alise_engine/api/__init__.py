"""Runs in vLLM's API-server process: the middleware before the engine, the control server for the sidecar, metrics and status."""
