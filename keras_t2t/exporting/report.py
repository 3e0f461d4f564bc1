"""What an export found out about the file it made."""

import dataclasses
import os
import pathlib

import numpy as np

from keras_t2t.exporting.onnx import onnx_ops
from keras_t2t.exporting.saved_model import saved_model_ops
from keras_t2t.exporting.tflite import tflite_ops
from keras_t2t.runtime import Runtime
from keras_t2t.timing import median_time

IMAGES_AT_ONCE = 8
OPS = {"saved_model": saved_model_ops, "tflite": tflite_ops, "onnx": onnx_ops}


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


def examine(
    path: pathlib.Path,
    name: str | os.PathLike,
    format_: str,
    quantize: str | None,
    ops: dict[str, int],
    runtime: Runtime,
    images: np.ndarray,
    expected: np.ndarray,
    kind: str,
) -> ExportReport:
    """Returns the report of an exported file.

    Args:
        path: The file.
        name: What it will be called.
        format_: Its format.
        quantize: How it was quantized.
        ops: Number of operations of each kind.
        runtime: The opened file.
        images: What to run it on.
        expected: What the model returns for `images`.
        kind: The `ModelSpec.output` of the model.
    """
    starts = range(0, len(images), IMAGES_AT_ONCE)
    parts = [runtime.run(images[i : i + IMAGES_AT_ONCE].astype(runtime.input_dtype)) for i in starts]
    outputs, expected = comparable(np.concatenate(parts), kind), comparable(expected, kind)
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


def measure_latency(runtime: Runtime, images: np.ndarray) -> float:
    """Returns the median time in seconds of one batch of the runtime's own size; of one image if it takes any size."""
    batch = np.resize(images, (runtime.input_shape[0] or 1, *images.shape[1:])).astype(runtime.input_dtype)
    return median_time(lambda: runtime.run(batch), at_least=5)


def comparable(outputs: np.ndarray, kind: str) -> np.ndarray:
    """Returns outputs in the form in which they are compared, float64.

    Probabilities become logits, up to a constant for each image: small ones would hide large differences of logits.

    Args:
        outputs: Array of shape `(n, ...)`.
        kind: The `ModelSpec.output` of the model.
    """
    outputs = np.asarray(outputs, "float64")
    if kind != "probabilities":
        return outputs
    logits = np.log(np.maximum(outputs, 1e-30))
    return logits - logits.mean(axis=-1, keepdims=True)
