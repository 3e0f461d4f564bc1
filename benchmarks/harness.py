"""Helpers for the benchmarks: measurements in fresh processes, and timings that alternate with a matrix product."""

import inspect
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MATRIX_SIZE = 2048
CHILD = """
import importlib, json, sys
module, name, arguments = sys.argv[1:]
print(json.dumps(getattr(importlib.import_module(module), name)(*json.loads(arguments))))
"""


def run_child(function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Calls a function of a benchmark in a fresh process, on TensorFlow and by default with oneDNN.

    Args:
        function: Public function of a module in this folder.
        *arguments: Arguments of the function. They are passed as JSON, and so is the result.
        environment: Environment variables to set for the process.

    Returns:
        What the function returns.

    Raises:
        SystemExit: If the process fails, with the end of its error output.
    """
    module = f"benchmarks.{pathlib.Path(inspect.getfile(function)).stem}"  # `__module__` may be "__main__"
    command = [sys.executable, "-c", CHILD, module, function.__name__, json.dumps(arguments)]
    defaults = {"TF_ENABLE_ONEDNN_OPTS": "1", **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    child = subprocess.run(command, env={**defaults, **(environment or {})}, capture_output=True, text=True)
    if child.returncode:
        sys.exit(f"{module}.{function.__name__}{arguments} failed:\n{child.stderr[-3000:]}")
    return json.loads(child.stdout.splitlines()[-1])


def in_turns(
    *functions: Callable[[], Any], seconds: float = 0.0, turns: int = 3, settle: bool = False
) -> list[tuple[float, ...]]:
    """Times functions in turns, after two calls of each that do not count.

    Args:
        *functions: Functions to time.
        seconds: Minimum total time to spend.
        turns: Minimum number of turns.
        settle: Whether to pause before each timed call, and then to call the function once more without timing it. The threads
            of one runtime keep spinning for a while and slow down the next one.

    Returns:
        For each turn, the seconds that each function took.
    """
    for function in 2 * functions:
        function()
    times: list[tuple[float, ...]] = []
    start = time.perf_counter()
    while len(times) < turns or time.perf_counter() - start < seconds:
        times.append(tuple(_time(function, settle) for function in functions))
    return times


def _time(function, settle):
    if settle:
        time.sleep(0.05)
        function()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def matrix_rate(function: Callable[[], Any], operations: float, seconds: float, settle: bool = False) -> dict[str, float]:
    """Compares a function with a 2048 x 2048 float32 matrix product in NumPy, timed in turns with it.

    Args:
        function: Function to time.
        operations: Number of floating-point operations in a call.
        seconds: Minimum total time to spend.
        settle: See `in_turns`.

    Returns:
        Medians over the turns: `"seconds"` of a call; `"gflops"`, the rate of the matrix product; and `"fraction"`, the rate of
        the function over that of the matrix product in the same turn.
    """
    matrix = np.random.default_rng(0).standard_normal((MATRIX_SIZE, MATRIX_SIZE)).astype("float32")
    turns = in_turns(lambda: matrix @ matrix, function, seconds=seconds, settle=settle)
    rates = [2 * MATRIX_SIZE**3 / product for product, _ in turns]
    return {
        "seconds": statistics.median(call for _, call in turns),
        "gflops": statistics.median(rates) / 1e9,
        "fraction": statistics.median(operations / call / rate for (_, call), rate in zip(turns, rates, strict=True)),
    }


def process_memory(field: str = "VmHWM") -> int:
    """Returns the bytes in a field of `/proc/self/status`, by default the peak of this process."""
    # `ru_maxrss` would start at the memory of the parent process.
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(dict(line.split(":", 1) for line in lines)[field].removesuffix("kB"))
