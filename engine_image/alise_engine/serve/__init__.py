"""Starts the engine: the command line, the flags and variables that it sets for vLLM, and the entry points that vLLM loads."""
