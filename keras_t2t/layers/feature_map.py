"""From a sequence of tokens back to the grid they lie on."""

import keras
from keras import ops

from keras_t2t.layers.common import check_grid


@keras.saving.register_keras_serializable("keras_t2t")
class FeatureMap(keras.Layer):
    """Drops the class token and lays the other tokens back on their grid.

    Input:
        tokens: (B, 1 + h * w, D), the class token first.
        like: (B, h, w, any), a map on the same grid, of which only the shape is used.

    Output:
        (B, h, w, D).

    Raises:
        ValueError: if the tokens do not fit the grid.
    """

    def build(self, tokens_shape, like_shape):
        check_grid(self, tokens_shape, like_shape[1:3], "the map `like`")

    def call(self, tokens, like):
        batch, rows, columns, _ = ops.shape(like)
        return ops.reshape(tokens[:, 1:], (batch, rows, columns, tokens.shape[-1]))

    def compute_output_shape(self, tokens_shape, like_shape):
        return (*like_shape[:3], tokens_shape[-1])
