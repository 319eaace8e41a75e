"""What is kept of finished requests in memory, and how models are fitted on it, in a process of its own."""
