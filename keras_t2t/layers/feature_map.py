"""Turns a sequence of tokens back into a grid."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import check_grid


@keras.saving.register_keras_serializable("keras_t2t")
class FeatureMap(keras.Layer):
    """Drops the class token and reshapes the other tokens back into their grid.

    Call arguments:
        tokens: Tensor `(B, 1 + h * w, D)`, with the class token first.
        like: Tensor `(B, h, w, ...)` on the same grid. Only its shape is used.

    Output shape:
        `(B, h, w, D)`.

    Raises:
        ValueError: If the tokens do not fit the grid.

    Example:

    >>> grid = keras.Input((14, 14, 384))
    >>> tokens = keras_t2t.layers.ClassToken()(grid)
    >>> keras_t2t.layers.FeatureMap()(tokens, grid).shape
    (None, 14, 14, 384)
    """

    def build(self, tokens_shape: tuple, like_shape: tuple) -> None:
        check_grid(self, tokens_shape, like_shape[1:3], "`like`")

    def call(self, tokens: Any, like: Any) -> Any:
        batch, rows, columns = ops.shape(like)[:3]
        return ops.reshape(tokens[:, 1:], (batch, rows, columns, tokens.shape[-1]))

    def compute_output_shape(self, tokens_shape: tuple, like_shape: tuple) -> tuple:
        return (*like_shape[:3], tokens_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # without this method, Keras would refuse a `dtype` that is a `keras.DTypePolicy`
