"""Every use of vLLM's private names, for the one version that this package was written against.

The rest of alise_engine uses only what vLLM documents as an extension point, and overrides of the scheduler's and the connector's methods.
`names` lists all of it, and `tests/engine/test_compat.py` fails first when upstream moves.

    names               the version of vLLM, and every name of it that alise relies on
    refusals            configurations that alise cannot work with, refused at start
    patches             functions of vLLM that alise replaces in the running process
    grammar_limits      how large a grammar for structured output may be
    device              CPU or CUDA, and its INT8 kernels
    geometry            the shape of the KV cache
    request_access      one request
    kv_blocks           the scheduler's KV blocks
    scheduler_access    the scheduler's queues, state and outputs
    served_adapters     the LoRA adapters that clients can ask for
"""
