"""The connection to the engine: what the dispatcher needs of it, and the gRPC client that provides it."""
