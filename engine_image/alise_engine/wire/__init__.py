"""Defines what the API-server process and EngineCore exchange; both may import it."""
