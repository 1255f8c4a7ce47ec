"""What the laws about sketches share (`test_sketch_error*.py`): bounds, values to draw, how wrong a quantile is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RMS_MOST, SINGLE_MOST = 1.1, 4.0
"""In stated errors: the root mean square of what is wrong, and any single answer."""

Times = npt.NDArray[np.float64]


def told(what: str, errors: list[float], stated: float) -> tuple[float, float]:
    """Return (root mean square, largest) in stated errors, and print the line of the docs."""
    rms = math.sqrt(sum(error * error for error in errors) / len(errors))
    largest = max(abs(error) for error in errors)
    print(f"| {what} | {len(errors)} | {rms:.4f} | {largest:.4f} | {rms / stated:.2f} | {largest / stated:.2f} |")
    return rms / stated, largest / stated


def startups(rng: np.random.Generator, count: int) -> Times:
    """Startup times in whole ms, log-normal: many are equal."""
    return np.round(rng.lognormal(math.log(900), 0.6, count))


def watch_times(rng: np.random.Generator, count: int) -> Times:
    """Watch times: a long tail, and one view of six that saw the whole film of 20 minutes."""
    drawn = np.round(rng.lognormal(math.log(120_000), 1.2, count))
    return np.where(rng.random(count) < 1 / 6, 1_200_000.0, drawn)


def rank_error(value: float, quantile: float, ordered: Times) -> float:
    """Return how far a quantile's value lies from the rank that was asked for; equal values share a span of ranks."""
    below = float(np.searchsorted(ordered, value, "left")) / len(ordered)
    upto = float(np.searchsorted(ordered, value, "right")) / len(ordered)
    return below - quantile if below > quantile else min(0.0, upto - quantile)
