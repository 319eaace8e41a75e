"""Replays traces through the production `decide()` on a simulated engine. Nothing here runs in production."""
