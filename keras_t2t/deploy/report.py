"""What an export found out about the file it made."""

import dataclasses
import os
import pathlib
import statistics
import time

import numpy as np

from keras_t2t.deploy.graph import as_logits
from keras_t2t.deploy.onnx import onnx_ops
from keras_t2t.deploy.runtimes import Runtime
from keras_t2t.deploy.saved_model import saved_model_ops
from keras_t2t.deploy.tflite import tflite_ops

IMAGES_AT_ONCE = 8
OPS = {"saved_model": saved_model_ops, "tflite": tflite_ops, "onnx": onnx_ops}


class ExportError(RuntimeError):
    """An export that did not pass its own checks; nothing was written."""


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it compares to the Keras model.

    Attributes:
        path: the file or folder.
        format, quantize: as asked for.
        size: bytes of the file, or of all files of the folder.
        ops: how many operations of each kind.
        images: how many images were compared.
        difference: the largest difference of a logit (of a feature, without a classifier), over the largest logit. Of
            probabilities the logarithms are compared, less their mean.
        agreement: part of the images with the same likeliest class.
        latency: median seconds of one batch of the file's size, or of one image, in its runtime on this machine.
    """

    path: pathlib.Path
    format: str
    quantize: str | None
    size: int
    ops: dict[str, int]
    images: int
    difference: float
    agreement: float
    latency: float

    def __str__(self):
        ops = ", ".join(f"{count} {op}" for op, count in sorted(self.ops.items(), key=lambda item: (-item[1], item[0])))
        return (
            f"{self.path}: {self.format}{f', {self.quantize}' if self.quantize else ''}, {self.size / 1e6:.2f} MB\n"
            f"  {self.images} images: logits differ by {self.difference:.1e} of the largest, "
            f"{self.agreement:.0%} have the same likeliest class\n"
            f"  {1000 * self.latency:.2f} ms a batch\n"
            f"  {ops}"
        )


def examine(path, name, format_, quantize, ops, runtime: Runtime, images: np.ndarray, expected: np.ndarray) -> ExportReport:
    """Returns the report of the file at `path`, which will be called `name`, run on `images` whose outputs are `expected`."""
    starts = range(0, len(images), IMAGES_AT_ONCE)
    parts = [runtime.run(images[i : i + IMAGES_AT_ONCE].astype(runtime.input_dtype)) for i in starts]
    outputs, expected = as_logits(np.concatenate(parts)), as_logits(expected)
    difference = np.abs(outputs - expected).max()
    return ExportReport(
        path=pathlib.Path(name),
        format=format_,
        quantize=quantize,
        size=size_of(path),
        ops=ops,
        images=len(images),
        difference=float(difference and difference / np.abs(expected).max()),
        agreement=float((outputs.argmax(-1) == expected.argmax(-1)).mean()),
        latency=measure_latency(runtime, images),
    )


def size_of(path: str | os.PathLike) -> int:
    """Returns the bytes of a file, or of all files below a folder."""
    path = pathlib.Path(path)
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def measure_latency(runtime: Runtime, images: np.ndarray, seconds: float = 1.0, least: int = 5) -> float:
    """Returns the median time in seconds of one batch of the runtime's own size, one image where it takes any."""
    batch = np.resize(images, (runtime.input_shape[0] or 1, *images.shape[1:])).astype(runtime.input_dtype)
    times = []
    runtime.run(batch)
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        runtime.run(batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
