"""One interface for models that run, whatever runs them: Keras, TensorFlow, LiteRT or ONNX Runtime."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from keras_t2t.preprocessing import ModelSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """A model that runs.

    Attributes:
        name: Name of the runtime.
        run: Function from images `(n, H, W, C)` of `input_dtype` to outputs `(n, ...)`, float32, for any n of at least 1.
        input_shape: `(B, H, W, C)`. B is `None` if batches of any size run at once.
        input_dtype: `"float32"` or `"uint8"`.
        known_spec: What the model takes and returns, or `None` if its file does not say so.
    """

    name: str
    run: Callable[[np.ndarray], np.ndarray]
    input_shape: tuple[int | None, ...]
    input_dtype: str
    known_spec: ModelSpec | None

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and returns.

        Raises:
            ValueError: If its file does not say so.
        """
        if self.known_spec is None:
            raise ValueError(
                "This file has no metadata of keras_t2t, so it is not known how images have to be prepared for the model. "
                "Export the model again with keras_t2t.export"
            )
        return self.known_spec


def available_cores() -> int:
    """Returns the number of processor cores that this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
