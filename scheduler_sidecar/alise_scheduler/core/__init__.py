"""The decisions, as pure functions. No clock, socket or coroutine: time is an argument, and the same snapshot gives the same plan."""
