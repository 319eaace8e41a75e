"""vLLM with resumable preemption: middleware, scheduler, KV host store and control server, as plugins of stock vLLM."""
