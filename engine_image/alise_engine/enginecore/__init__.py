"""Runs in EngineCore's process, in its one thread: the scheduler that carries out the plan, and what it reports."""
