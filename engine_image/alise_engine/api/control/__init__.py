"""Serves the sidecar over gRPC and forwards its plans to EngineCore, which decides at every step."""
