"""What several layers share: the precision of delicate arithmetic and the checks of arguments."""

import keras


def precise_dtype(dtype: str) -> str:
    """Returns the dtype for arithmetic that must not run in 16 bits: float32, or float64 where `dtype` is float64.

    Under mixed precision this holds for the performer's random features and division, the softmax of attention weights, the
    resizing of position tables, and the activation of the classifier.
    """
    return keras.backend.result_type(dtype, "float32")


def where(layer: keras.Layer) -> str:
    """Returns what error messages call `layer`: its path in the model once it is built."""
    return layer.path or layer.name


def check_rank(layer: keras.Layer, shape, rank: int, expected: str):
    """Raises `ValueError` unless `shape` has `rank` axes."""
    if len(shape) != rank:
        raise ValueError(f"{where(layer)}: expected {expected}; received an input of shape {tuple(shape)}")


def check_rate(layer: keras.Layer, name: str, rate: float):
    """Raises `ValueError` unless `rate` is in [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(f"{where(layer)}: expected a rate in [0, 1); received: {name}={rate!r}")
