"""What crosses between the API-server process and EngineCore; both may import it."""
