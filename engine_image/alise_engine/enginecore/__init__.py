"""What lives in EngineCore's process, one thread between two steps: the scheduler that carries out the plan, and what it reports."""
