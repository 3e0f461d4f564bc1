"""What the layers of an inference graph have in common: weights folded beforehand."""

import math

import keras
from keras import ops

from keras_t2t.layers.fast_dense import add_bias


class FoldedLayer(keras.Layer):
    """A layer for inference only, whose weights were computed from those of other layers.

    Args:
        shapes: the shape of each weight by its name.
    """

    def __init__(self, shapes: dict[str, tuple], **kwargs):
        super().__init__(**kwargs)
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.folded = {
            name: self.add_weight(name=name, shape=shape, initializer="zeros", trainable=False)
            for name, shape in self.shapes.items()
        }

    @classmethod
    def from_arrays(cls, arrays: dict, **kwargs):
        """Returns a layer with these weights; the other arguments are those of the class."""
        layer = cls(shapes={name: array.shape for name, array in arrays.items()}, **kwargs)
        for name, array in arrays.items():
            layer.folded[name].assign(array)
        return layer

    def dense(self, x, name: str, gelu: bool = False):
        """Returns x (n, D) times `name_kernel` (D, units), plus `name_bias`, through exact GELU if asked."""
        x = add_bias(ops.matmul(x, self.folded[f"{name}_kernel"]), self.folded[f"{name}_bias"])
        return exact_gelu(x) if gelu else x

    def get_config(self):
        return {**super().get_config(), "shapes": self.shapes}


@keras.saving.register_keras_serializable("keras_t2t")
def exact_gelu(x):
    """Returns x times the normal distribution function of x, in the form that every converter and runtime knows."""
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def standardize(x, epsilon: float):
    """Returns x (n, D) less its mean over the channels, divided by its deviation: a LayerNorm without scale and shift."""
    x = x - ops.mean(x, axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + epsilon)


def attend(queries, keys, values):
    """Returns softmax(queries keys') values, (..., n, d), of queries (..., n, d) that are scaled already."""
    scores = ops.matmul(queries, ops.swapaxes(keys, -1, -2))  # (..., n, N)
    return ops.matmul(ops.softmax(scores, axis=-1), values)
