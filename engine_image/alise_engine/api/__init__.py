"""What lives in vLLM's API-server process: everything between a client's bytes and the engine, and what the engine reports outwards."""
