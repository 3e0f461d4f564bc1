"""Benchmarks of models in their runtimes: speed, memory and size."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from keras_t2t.exporting.report import size_of
from keras_t2t.figures import PALETTE, new_figure
from keras_t2t.runtime import available_cores

PROGRAM = pathlib.Path(__file__).with_name("measure_child.py")
START = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
"""Code that runs `PROGRAM`. As a script, `PROGRAM` would import the `onnx.py` next to it instead of the package `onnx`."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Speed, memory and size of one model on this machine.

    Attributes:
        path: The file or folder.
        runtime: Name of the runtime.
        size: Size in bytes of the file, or of all files in the folder.
        latency: Median time in seconds for one image.
        throughput: Images per second by batch size. A TFLite file splits these batches into batches of its own size.
        memory: Peak memory in bytes of a process with Python, NumPy, the runtime, the model and the largest of these batches.
    """

    path: pathlib.Path
    runtime: str
    size: int
    latency: float
    throughput: dict[int, float]
    memory: int


def measure(
    path: str | os.PathLike, batches: Sequence[int] = (8,), seconds: float = 2.0, threads: int | None = None
) -> Measurement:
    """Measures a model in a separate process, on random pixels.

    Args:
        path: An exported file, the folder of a SavedModel, or a `.keras` file.
        batches: Batch sizes for the throughput.
        seconds: Time to spend on each batch size. At least three batches are measured.
        threads: Number of threads. Defaults to all cores available to this process.

    Returns:
        A `Measurement`.

    Raises:
        ValueError: If a batch size is not positive, if the file is of another kind or damaged, or if its runtime is not
            installed.
        FileNotFoundError: If `path` does not exist.
        RuntimeError: If the process died, possibly because it ran out of memory.
    """
    path = pathlib.Path(path)
    if not batches or min(batches) < 1:
        raise ValueError(f"Expected positive batch sizes; received: batches={batches}")
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}")
    threads = threads or available_cores()
    command = [sys.executable, "-c", START, PROGRAM, path, threads, seconds, *batches]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": "tensorflow"}
    child = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    if child.returncode:
        reason = next(iter(child.stderr.strip().splitlines()[-1:]), f"status {child.returncode}")
        raise RuntimeError(f"The process that measured {path} died: {reason}")
    result = json.loads(child.stdout.splitlines()[-1])
    if "error" in result:
        raise ValueError(result["error"])
    result["throughput"] = dict(zip(batches, result["throughput"], strict=True))
    return Measurement(path=path, size=size_of(path), **result)


def draw(measurements: Sequence[Measurement], path: str | os.PathLike) -> None:
    """Draws measurements as a bar chart, with a panel for each quantity and a row for each model.

    Args:
        measurements: Measurements with the same batch sizes.
        path: The PNG file to write.
    """
    panels = {"latency, ms": [1e3 * each.latency for each in measurements]}
    for batch in measurements[0].throughput:
        panels[f"images/s at batch {batch}"] = [each.throughput[batch] for each in measurements]
    panels["peak memory, MiB"] = [each.memory / 2**20 for each in measurements]
    panels["size, MB"] = [each.size / 1e6 for each in measurements]
    figure = new_figure(2.4 + 2.3 * len(panels), 1.3 + 0.4 * len(measurements))
    rows = range(len(measurements))
    runtimes = list(dict.fromkeys(each.runtime for each in measurements))
    colors = [PALETTE[runtimes.index(each.runtime)] for each in measurements]
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(all_axes, panels.items(), strict=True):
        bars = axes.barh(rows, values, color=colors, height=0.7)
        axes.bar_label(bars, [f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in values], padding=3, fontsize=9)
        axes.set_title(f"{title}\n({'more' if 'images/s' in title else 'less'} is better)", fontsize=10)
        axes.set_xlim(0, 1.25 * max(values))
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    all_axes[0].set_yticks(rows, [each.path.name for each in measurements])
    all_axes[0].invert_yaxis()
    handles = [all_axes[0].barh(0, 0, color=color, label=name) for name, color in zip(runtimes, PALETTE, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(runtimes), frameon=False)
    figure.savefig(path, dpi=120)
