"""The layer normalization of this package."""

import keras
from keras import ops

from keras_t2t.layers.common import precise_dtype


@keras.saving.register_keras_serializable("keras_t2t")
class FastLayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, faster where operations run one by one.

    Keras spreads scale and shift over all tokens before it applies them; this order of operations passes over the tokens less
    often. `benchmarks/layers.py` measures what that gains. The weights are those of Keras.

    Args:
        epsilon: added to the variance.

    Input and output:
        (..., D), the same shape; the statistics are computed in at least float32.
    """

    def __init__(self, epsilon: float = 1e-5, name=None, dtype=None, trainable=True):
        super().__init__(epsilon=epsilon, name=name, dtype=dtype, trainable=trainable)

    def call(self, x):
        x = ops.cast(x, precise_dtype(x.dtype))
        centered = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centered), axis=-1, keepdims=True)
        gamma, beta = ops.cast(self.gamma, x.dtype), ops.cast(self.beta, x.dtype)
        normal = centered * (ops.rsqrt(variance + self.epsilon) * gamma) + beta
        return ops.cast(normal, self.compute_dtype)

    def get_config(self):
        return {**keras.Layer.get_config(self), "epsilon": self.epsilon}
