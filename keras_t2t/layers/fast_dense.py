"""The dense layer of this package."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_t2t")
class FastDense(keras.layers.Dense):
    """`keras.layers.Dense` with the initialization of the reference, and faster on CPUs.

    The kernel is initialized by a truncated normal of deviation 0.02. With oneDNN on, TensorFlow runs the product of two
    matrices, the addition of a bias and an activation (exact GELU too) as one kernel, but only if they come in the form of
    `call`; `benchmarks/layers.py` measures what that gains. The arguments and the weights are those of Keras.

    Input:
        (..., D).

    Output:
        (..., units).
    """

    def __init__(self, units: int, **kwargs):
        kwargs.setdefault("kernel_initializer", keras.initializers.TruncatedNormal(stddev=0.02))
        super().__init__(units, **kwargs)

    def call(self, x):
        _, *between, width = ops.shape(x)
        x = ops.matmul(ops.reshape(x, (-1, width)), self.kernel)
        if self.use_bias:
            x = add_bias(x, self.bias)
        if self.activation is not None:
            x = self.activation(x)
        return ops.reshape(x, (-1, *between, self.units))  # -1 keeps a batch of unknown size out of the graph


def add_bias(x, bias):
    """Returns x (n, units) + bias (units,)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.bias_add(x, bias)
    return x + bias
