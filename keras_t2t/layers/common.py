"""Helpers shared by the layers: precision, arguments of sublayers, and argument checks.

Every layer that contains dropout takes `training` in `call`, even if it only hands it on: Keras passes it to the sublayers by
itself, but before version 3.10 only if the outermost layer takes it.
"""

from typing import Any

import keras

from keras_t2t.configs import is_rate

NOT_QUANTIZED = "not_quantized"
"""Name scope of the operations that must stay in float32. The TFLite and ONNX quantizers skip operations with it in their name.

These are the norms of the windows with their convolutions; the performer's product with the random features, because the
exponential after it would magnify rounding errors; and the resizing of feature maps.
"""


def precise_dtype(dtype: Any) -> str:
    """Returns the dtype for arithmetic that must not run in 16 bits: float64 if `dtype` is float64, otherwise float32.

    Under mixed precision, this dtype is used for the normalization of images, the performer's features and softmaxes, the
    softmax of the attention weights, the statistics of layer normalization, the resizing of position tables, and the activation
    of the classifier.
    """
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def sublayer_kwargs(layer: keras.Layer) -> dict[str, Any]:
    """Returns the constructor arguments that give a sublayer the precision of `layer`, and freeze it if `layer` is frozen.

    Keras propagates `trainable` to sublayers only when it is set after construction, but a loaded or cloned layer may be frozen
    from the start.
    """
    return {"dtype": layer.dtype_policy, "trainable": layer.trainable}


def layer_path(layer: keras.Layer) -> str:
    """Returns how error messages refer to `layer`: by its path in the model, or by its name if it has no path yet."""
    return layer.path or layer.name


def check_rank(layer: keras.Layer, shape: tuple, rank: int, expected: str) -> None:
    """Raises `ValueError` unless `shape` has `rank` axes."""
    if len(shape) != rank:
        raise ValueError(f"{layer_path(layer)}: expected {expected}; received: input_shape={tuple(shape)}")


def check_rate(layer: keras.Layer, name: str, rate: float) -> None:
    """Raises `ValueError` unless `rate` is in [0, 1)."""
    if not is_rate(rate):
        raise ValueError(f"{layer_path(layer)}: expected a rate in [0, 1); received: {name}={rate!r}")


def check_grid(layer: keras.Layer, tokens_shape: tuple, grid: tuple, source: str) -> None:
    """Raises `ValueError` unless the tokens are a class token and a (rows, columns) grid. Unknown sizes are accepted.

    Args:
        layer: Layer that the error message names.
        tokens_shape: `(B, N, D)`.
        grid: `(rows, columns)`.
        source: Where the grid comes from, for the error message.
    """
    rows, columns = grid
    if None not in (tokens_shape[1], rows, columns) and tokens_shape[1] != 1 + rows * columns:
        raise ValueError(
            f"{layer_path(layer)}: expected a class token and a grid of {rows}x{columns} tokens, as given by {source}; "
            f"received: tokens_shape={tuple(tokens_shape)}"
        )
