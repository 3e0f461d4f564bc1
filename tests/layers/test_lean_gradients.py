"""On TensorFlow, GELU and LayerNorm keep only their input in training. Their gradients are those of finite differences and of
automatic differentiation, and they can be differentiated again."""

import keras
import numpy as np
import pytest

from keras_t2t.layers import FastDense, FastLayerNorm
from keras_t2t.layers.ghost_block import GhostMLP
from tests import numpy_t2t

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs gradients of TensorFlow")

X = np.random.default_rng(0).standard_normal((2, 3, 5))
WEIGHTS = np.random.default_rng(1).standard_normal((2, 3, 5))
LAYERS = {
    "gelu": lambda: FastDense(5, activation="gelu", kernel_initializer="identity", dtype="float64"),
    "layer_norm": lambda: FastLayerNorm(epsilon=0.1, dtype="float64"),
    "ghost": lambda: GhostMLP(6, dtype="float64"),
}


def built(name):
    layer = LAYERS[name]()
    layer.build(X.shape)
    rng = np.random.default_rng(2)
    layer.set_weights([value + rng.uniform(0.1, 0.5, value.shape) for value in layer.get_weights()])
    return layer


def gradients(layer, training, compiled=False):
    """Returns the gradients of a weighted sum of the outputs by the input and the weights, and of their norm by the input."""

    def function(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(WEIGHTS * layer(x, training=training))
            first = tape.gradient(loss, [x, *layer.trainable_variables])
            norm = tf.reduce_sum(first[0] ** 2)
        return [*first, outer.gradient(norm, x)]

    results = (tf.function(function) if compiled else function)(tf.constant(X))
    return [result.numpy() for result in results]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_first_and_second_gradients_equal_those_of_automatic_differentiation(name, compiled):
    layer = built(name)
    for lean, automatic in zip(gradients(layer, True, compiled), gradients(layer, False, compiled), strict=True):
        np.testing.assert_allclose(lean, automatic, rtol=1e-9, atol=1e-12)


def layer_norm(x, gamma, beta):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1) * gamma + beta


@pytest.mark.parametrize(
    ("name", "function"),
    [("gelu", lambda x, kernel, bias: numpy_t2t.gelu(x @ kernel + bias)), ("layer_norm", layer_norm)],
)
def test_gradients_equal_finite_differences_in_numpy(name, function):
    layer = built(name)
    arguments = [X, *layer.get_weights()]
    for index, gradient in enumerate(gradients(layer, True)[:-1]):
        for position in np.ndindex(gradient.shape):
            sums = []
            for step in (1e-5, -1e-5):
                changed = [value.copy() for value in arguments]
                changed[index][position] += step
                sums.append((WEIGHTS * function(*changed)).sum())
            np.testing.assert_allclose(gradient[position], (sums[0] - sums[1]) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("layer", [FastLayerNorm, lambda **kwargs: FastDense(5, activation="gelu", **kwargs)])
def test_training_does_not_change_the_outputs(layer, dtype):
    layer = layer(dtype=dtype)
    plain, training = (keras.ops.convert_to_numpy(layer(X, training=training)).astype("float32") for training in (False, True))
    np.testing.assert_array_equal(training, plain)
