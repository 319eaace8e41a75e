"""The endpoint picker: sends each request to the replica where it would wait least, by its own predicted length and rank.

    Envoy ── ext_proc ──▶ server.py, exchange.py     what is read of a request, what is answered
                              │
                          picker.py                  one request: look, ask for its length, choose, hold
                              │
                          choose.py, affinity.py     the decision, in plain functions
                              │
    replicas.py, endpoints.py, web.py                each replica's load and predictions; which replicas there are; /waiting, /metrics

It is a convenience for the waits, never a condition for an answer: without it, Envoy balances by itself.
"""
