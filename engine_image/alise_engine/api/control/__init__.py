"""The engine's control server and what it stands on: it forwards, EngineCore decides per step."""
