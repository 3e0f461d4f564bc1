"""A common interface for running models with Keras, TensorFlow, LiteRT, ONNX Runtime or OpenVINO."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from keras_t2t.preprocessing import ModelSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """A model that is ready to run.

    Args:
        name: Name of the runtime.
        run: Function that maps images `(n, H, W, C)` of dtype `input_dtype` to float32 outputs `(n, ...)`, for any n >= 1.
        input_shape: `(B, H, W, C)`. B is `None` if the model accepts batches of any size.
        input_dtype: `"float32"` or `"uint8"`.
        known_spec: Description of the model's inputs and outputs, or `None` if its file does not contain one.
    """

    name: str
    run: Callable[[np.ndarray], np.ndarray]
    input_shape: tuple[int | None, ...]
    input_dtype: str
    known_spec: ModelSpec | None

    @property
    def spec(self) -> ModelSpec:
        """Description of the model's inputs and outputs.

        Raises:
            ValueError: If the file of the model does not contain one.
        """
        if self.known_spec is None:
            raise ValueError(
                "Expected a file with keras_t2t metadata, which describes how to prepare images; received a file without it. "
                "Export the model again with keras_t2t.export."
            )
        return self.known_spec


def available_cores() -> int:
    """Returns the number of CPU cores that this process may use, or the number of all cores if that is unknown."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
