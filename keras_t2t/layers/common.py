"""What several layers share: the precision of delicate arithmetic and the checks of arguments."""

import keras

from keras_t2t.configs import is_rate


def precise_dtype(dtype: str) -> str:
    """Returns the dtype for arithmetic that must not run in 16 bits: float32, or float64 where `dtype` is float64.

    Under mixed precision this holds for the performer's random features and division, the softmax of attention weights, the
    resizing of position tables, and the activation of the classifier.
    """
    return keras.backend.result_type(dtype, "float32")


def inherited(layer: keras.Layer) -> dict:
    """Returns the arguments with which `layer` makes its parts, so that they share its precision and are frozen with it.

    Keras hands `trainable` down only when it is set later; a frozen layer that is loaded or cloned starts out frozen.
    """
    return {"dtype": layer.dtype_policy, "trainable": layer.trainable}


def where(layer: keras.Layer) -> str:
    """Returns what error messages call `layer`: its path in the model once it is built."""
    return layer.path or layer.name


def check_rank(layer: keras.Layer, shape, rank: int, expected: str):
    """Raises `ValueError` unless `shape` has `rank` axes."""
    if len(shape) != rank:
        raise ValueError(f"{where(layer)}: expected {expected}; received an input of shape {tuple(shape)}")


def check_rate(layer: keras.Layer, name: str, rate: float):
    """Raises `ValueError` unless `rate` is in [0, 1)."""
    if not is_rate(rate):
        raise ValueError(f"{where(layer)}: expected a rate in [0, 1); received: {name}={rate!r}")


def check_grid(layer: keras.Layer, tokens_shape, grid, origin: str):
    """Raises `ValueError` if tokens are not the class token and a grid of (rows, columns), as far as the sizes are known."""
    rows, columns = grid
    if None not in (tokens_shape[1], rows, columns) and tokens_shape[1] != 1 + rows * columns:
        raise ValueError(
            f"{where(layer)}: expected the class token and a grid of {rows}x{columns} tokens, as {origin} tells; "
            f"received tokens of shape {tuple(tokens_shape)}"
        )
