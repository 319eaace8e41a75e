"""Predicted lengths for the requests of a trace, as quantiles [N, QUANTILES]. `__main__.py` and the benchmarks use them. Pure."""

import numpy as np

from alise_scheduler.core.job import Ints
from alise_scheduler.core.lengths import MAX_TOKENS, NORMAL_QUANTILES, PROBABILITIES, QUANTILES, Floats


def oracle(output_tokens: Ints) -> Floats:
    """The true length, as every quantile."""
    return np.repeat(output_tokens.astype(np.float64)[:, None], QUANTILES, axis=1)


def blind(output_tokens: Ints) -> Floats:
    """The same quantiles for every request: those of all lengths."""
    quantiles = np.quantile(output_tokens.astype(np.float64), PROBABILITIES)
    return np.repeat(np.maximum(quantiles, 1.0)[None, :], len(output_tokens), axis=0)


def noisy(output_tokens: Ints, sigma: float, seed: int) -> Floats:
    """Truth times lognormal noise, and quantiles that say how wide it is: a calibrated posterior around a noisy reading.

    With lengths of log-variance v and noise sigma², the posterior of the log length is normal around the shrunken reading, with variance
    v·sigma²/(v + sigma²).
    """
    logs = np.log(output_tokens.astype(np.float64))
    mean, variance = float(logs.mean()), max(float(logs.var()), 1e-9)
    # A separate random stream, so that the noise does not depend on a trace with the same seed.
    reading = logs + np.random.default_rng([seed, 1]).normal(0.0, sigma, len(logs))
    trust = variance / (variance + sigma * sigma)
    center = mean + trust * (reading - mean)
    spread = sigma * np.sqrt(trust)
    result: Floats = np.clip(np.exp(center[:, None] + spread * np.array(NORMAL_QUANTILES)[None, :]), 1.0, MAX_TOKENS)
    return result


def predicted(kind: str, output_tokens: Ints, seed: int) -> Floats:
    """Predictions by name: oracle, blind, or noise:SIGMA. Raises ValueError for an unknown name."""
    name, _, sigma = kind.partition(":")
    match name:
        case "oracle":
            return oracle(output_tokens)
        case "blind":
            return blind(output_tokens)
        case "noise":
            try:
                return noisy(output_tokens, float(sigma or "0.8"), seed)
            except ValueError as error:
                raise ValueError(f"noise takes a number, as in noise:0.8; got {sigma!r}") from error
    raise ValueError(f"unknown predictions {kind!r}; use oracle, blind or noise:SIGMA")
