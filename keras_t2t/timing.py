"""Timing of function calls. Uses only the standard library, so that importing it does not distort memory measurements."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def median_time(run: Callable[[], Any], seconds: float = 1.0, at_least: int = 3) -> float:
    """Returns the median time of a call in seconds, not counting the first call.

    Args:
        run: Function to time.
        seconds: Minimum total time of the timed calls, in seconds.
        at_least: Minimum number of timed calls.
    """
    times: list[float] = []
    run()
    while len(times) < at_least or sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
