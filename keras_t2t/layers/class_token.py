"""The class token."""

import math

import keras
from keras import ops

from keras_t2t.layers.common import where


@keras.saving.register_keras_serializable("keras_t2t")
class ClassToken(keras.Layer):
    """Puts one trained token in front of the tokens of every image.

    Input:
        (B, h, w, D), a token grid, or (B, N, D), a sequence.

    Output:
        (B, 1 + N, D), the class token first and the grid row by row after it.
    """

    def build(self, input_shape):
        if len(input_shape) < 3:
            raise ValueError(f"{where(self)}: expected tokens (batch, ..., width); received an input of shape {input_shape}")
        self.token = self.add_weight(
            name="token",
            shape=(1, 1, input_shape[-1]),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        )

    def call(self, x):
        shape = ops.shape(x)
        tokens = ops.reshape(x, (shape[0], math.prod(shape[1:-1]), shape[-1]))
        token = ops.broadcast_to(ops.cast(self.token, x.dtype), (shape[0], 1, shape[-1]))
        return ops.concatenate([token, tokens], axis=1)

    def compute_output_shape(self, input_shape):
        batch, *grid, width = input_shape
        return (batch, None if None in grid else 1 + math.prod(grid), width)
