"""Starting: the command line, what it tells vLLM, and the entry points that vLLM loads."""
