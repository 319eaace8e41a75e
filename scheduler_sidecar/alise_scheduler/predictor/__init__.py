"""Predicts how long an answer will be and learns from those that ended. Stores lengths, numbers, embeddings and salted hashes; no text."""
