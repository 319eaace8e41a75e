"""Predicts how long an answer will be and learns from those that ended. Stores lengths and hashes, never prompt text."""
