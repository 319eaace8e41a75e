"""Predicts the lengths of answers and learns from finished requests. It stores lengths, numbers, embeddings and salted hashes, and no text.

`start.py` assembles it, `learned.py` predicts and learns in the dispatcher, `encode_queue.py` embeds prompts, and `training/loop.py` trains
in the background. import-linter checks that the layers `features/`, `models/`, `training/` and `storage/` point down (pyproject.toml).
"""
