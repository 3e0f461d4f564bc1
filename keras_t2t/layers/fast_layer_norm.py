"""The layer normalization used throughout this package."""

from typing import Any

import keras
from keras import ops

from keras_t2t.layers.common import precise_dtype


@keras.saving.register_keras_serializable("keras_t2t")
class FastLayerNorm(keras.layers.LayerNormalization):
    """A `keras.layers.LayerNormalization` over the last axis that is faster when operations are not fused.

    Keras broadcasts the scale and shift to the shape of the tokens before applying them. The order of operations here makes
    fewer passes over the tokens. `benchmarks/layers.py` measures the speedup. The layer has the same weights as
    `keras.layers.LayerNormalization`. Everything is computed in at least float32, and the result is cast to the compute dtype.

    Args:
        epsilon: Value added to the variance.
        name: Name of the layer.
        dtype: Dtype or dtype policy of the layer.
        trainable: Whether the weights are trained.

    Input shape:
        `(..., D)`.

    Output shape:
        Same as the input shape.

    Example:

    >>> y = keras_t2t.layers.FastLayerNorm()(np.array([[2.0, 2.0, 8.0, 8.0]]))
    >>> keras.ops.convert_to_numpy(y).round().tolist()
    [[-1.0, -1.0, 1.0, 1.0]]
    """

    def __init__(self, epsilon: float = 1e-5, name: str | None = None, dtype: Any = None, trainable: bool = True):
        super().__init__(epsilon=epsilon, name=name, dtype=dtype, trainable=trainable)

    def call(self, x: Any) -> Any:
        x = ops.cast(x, precise_dtype(x.dtype))
        centered = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centered), axis=-1, keepdims=True)
        gamma, beta = ops.cast(self.gamma, x.dtype), ops.cast(self.beta, x.dtype)
        normalized = centered * (ops.rsqrt(variance + self.epsilon) * gamma) + beta
        return ops.cast(normalized, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**keras.Layer.get_config(self), "epsilon": self.epsilon}
