"""Timing. It needs nothing but Python's standard library, so that processes that measure memory can load it alone."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def median_time(run: Callable[[], Any], seconds: float = 1.0, at_least: int = 3) -> float:
    """Returns the median time of a call in seconds, after one call that does not count.

    Args:
        run: Function to time.
        seconds: Total time to spend, at least.
        at_least: Number of timed calls, at least.
    """
    times: list[float] = []
    run()
    while len(times) < at_least or sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
