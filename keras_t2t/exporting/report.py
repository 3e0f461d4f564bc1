"""The report of an export, and the comparison of the file with the model."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_t2t.errors import counted
from keras_t2t.export_formats import files_of
from keras_t2t.exporting.onnx import onnx_ops
from keras_t2t.exporting.openvino import openvino_ops
from keras_t2t.exporting.saved_model import saved_model_ops
from keras_t2t.exporting.tflite import tflite_ops
from keras_t2t.runtime import Runtime
from keras_t2t.timing import median_time

IMAGES_AT_ONCE = 8
OP_COUNTERS = {"saved_model": saved_model_ops, "tflite": tflite_ops, "onnx": onnx_ops, "openvino": openvino_ops}


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """An exported file, and how it compares with the Keras model.

    Attributes:
        path: The file or folder.
        format: `"saved_model"`, `"tflite"`, `"onnx"` or `"openvino"`.
        quantize: How the model was quantized, or `None`.
        size: Size in bytes of all files of the export.
        ops: Number of operations of each kind.
        images: Number of images in the comparison.
        difference: Maximum difference of a logit, relative to the largest logit. Probabilities are compared as logarithms minus
            their mean; features are compared as they are.
        agreement: Fraction of images with the same decision: the same top class, or for independent scores, such as those of a
            sigmoid, the same classes above 0.5. For a segmenter, the fraction of pixels.
        per_pixel: Whether the model is a segmenter.
        output: What the model returns; see `keras_t2t.preprocessing.ModelSpec`.
        latency: Median time in seconds of one batch in the runtime of the file on this machine. The batch size is that of a
            TFLite file, and 1 for the other formats.
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
    per_pixel: bool = False
    output: str = "logits"

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.format}{f', {self.quantize}' if self.quantize else ''}, {self.size / 1e6:.2f} MB"]
        if self.output != "features":
            of_what = " of the pixels" if self.per_pixel else ""
            decision = "classes above 0.5" if self.output == "scores" else "top class"
            lines.append(f"{counted(self.images, 'image')}: {self.agreement:.0%}{of_what} have the same {decision}")
        value = {"features": "feature", "scores": "score"}.get(self.output, "logit")
        lines.append(f"{value}s differ by up to {self.difference:.1e} of the largest {value}")
        return "\n  ".join([*lines, f"{1000 * self.latency:.2f} ms per batch"])

    def list_operators(self) -> str:
        """Returns the number of operations of each kind, one kind per line, with the most frequent ones first."""
        ops = sorted(self.ops.items(), key=lambda item: (-item[1], item[0]))
        return "\n".join(f"{count:6} {op}" for op, count in ops)


def examine(runtime: Runtime, images: np.ndarray, expected: np.ndarray, kind: str) -> dict[str, Any]:
    """Returns the attributes of `ExportReport` that depend on what an exported file returns for images.

    Args:
        runtime: The opened file.
        images: Images to run it on.
        expected: Outputs of the Keras model for `images`.
        kind: The `ModelSpec.output` of the model.
    """
    received = run_in_batches(runtime.run, images.astype(runtime.input_dtype))
    per_pixel = expected.ndim == 4 and kind != "features"
    agreement = decisions(received, kind) == decisions(expected, kind)
    agreement = agreement.reshape(np.prod(expected.shape[: 3 if per_pixel else 1]), -1).all(1).mean()
    outputs, expected = comparable(received, kind), comparable(expected, kind)
    difference = np.abs(outputs - expected).max()
    return {
        "images": len(images),
        "difference": float(difference and difference / np.abs(expected).max()),
        "agreement": float(agreement),
        "latency": measure_latency(runtime, images),
        "per_pixel": per_pixel,
        "output": kind,
    }


def run_in_batches(run: Callable[[np.ndarray], Any], images: np.ndarray) -> np.ndarray:
    """Returns the outputs of a model for images, a few of which are in memory at a time."""
    return np.concatenate([np.asarray(run(images[i : i + IMAGES_AT_ONCE])) for i in range(0, len(images), IMAGES_AT_ONCE)])


def size_of(path: str | os.PathLike) -> int:
    """Returns the size in bytes of all files of an export, including those in subfolders."""
    entries = [entry for top in files_of(path) for entry in (top, *top.rglob("*"))]
    return sum(entry.stat().st_size for entry in entries if entry.is_file())


def measure_latency(runtime: Runtime, images: np.ndarray) -> float:
    """Returns the median time in seconds of one batch, or of one image if the runtime accepts batches of any size."""
    batch = np.resize(images, (runtime.input_shape[0] or 1, *images.shape[1:])).astype(runtime.input_dtype)
    return median_time(lambda: runtime.run(batch), seconds=0.3, at_least=5)


def decisions(outputs: np.ndarray, kind: str) -> np.ndarray:
    """Returns the decisions that a user would make based on the outputs.

    Args:
        outputs: Outputs of shape `(n, ...)`.
        kind: The `ModelSpec.output` of the model.

    Returns:
        The top classes; or, for independent scores and for a single logit, which of them are positive.
    """
    if has_threshold(outputs, kind):
        return outputs > (0.5 if kind == "scores" else 0)
    return outputs.argmax(-1)


def has_threshold(outputs: np.ndarray, kind: str) -> bool:
    """Returns whether a threshold decides, as for independent scores and for a single logit, rather than the largest output."""
    return kind == "scores" or (kind == "logits" and outputs.shape[-1] == 1)


def comparable(outputs: np.ndarray, kind: str) -> np.ndarray:
    """Returns outputs in the form in which they are compared, as float64.

    Probabilities are turned into logits, up to a constant for each image. Otherwise small probabilities would hide large
    differences of logits.

    Args:
        outputs: Outputs of shape `(n, ...)`.
        kind: The `ModelSpec.output` of the model.
    """
    outputs = np.asarray(outputs, "float64")
    if kind != "probabilities":
        return outputs
    logits = np.log(np.maximum(outputs, 1e-30))
    return logits - logits.mean(axis=-1, keepdims=True)
