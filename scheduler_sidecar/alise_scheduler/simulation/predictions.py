"""Predictions for a trace: what the core is told of lengths. Quantiles, [N, QUANTILES]."""

from typing import Final

import numpy as np

from ..core.job import Ints
from ..core.lengths import MAX_TOKENS, PROBABILITIES, QUANTILES, Floats

# Standard normal quantiles at PROBABILITIES.
_NORMAL: Final = np.array([-1.6449, -1.0364, -0.6745, -0.3853, -0.1257, 0.1257, 0.3853, 0.6745, 1.0364, 1.6449])


def oracle(output_tokens: Ints) -> Floats:
    """The truth."""
    return np.repeat(output_tokens.astype(np.float64)[:, None], QUANTILES, axis=1)


def blind(output_tokens: Ints) -> Floats:
    """The same for everybody: the distribution of all lengths."""
    quantiles = np.quantile(output_tokens.astype(np.float64), PROBABILITIES)
    return np.repeat(np.maximum(quantiles, 1.0)[None, :], len(output_tokens), axis=0)


def noisy(output_tokens: Ints, sigma: float, seed: int) -> Floats:
    """Truth times lognormal noise, and quantiles that say how wide it is: a calibrated posterior around a noisy reading.

    With lengths of log-variance v and noise sigma², the posterior of the log length is normal around the shrunken reading, with variance
    v·sigma²/(v + sigma²).
    """
    logs = np.log(output_tokens.astype(np.float64))
    mean, variance = float(logs.mean()), max(float(logs.var()), 1e-9)
    # A stream of its own: a trace made with the same seed must not have its noise foretold.
    reading = logs + np.random.default_rng([seed, 1]).normal(0.0, sigma, len(logs))
    trust = variance / (variance + sigma * sigma)
    center = mean + trust * (reading - mean)
    spread = sigma * np.sqrt(trust)
    result: Floats = np.clip(np.exp(center[:, None] + spread * _NORMAL[None, :]), 1.0, MAX_TOKENS)
    return result
