import keras
import numpy as np
import pytest

from keras_t2t.layers import SoftSplit
from keras_t2t.layers.soft_split import extract_patches
from tests.numpy_t2t import unfold


@pytest.mark.parametrize(("kernel", "strides", "padding"), [(7, 4, 2), (3, 2, 1), (5, 1, 0), (2, 3, 1)])
def test_windows_match_a_loop(kernel, strides, padding):
    x = np.random.default_rng(0).standard_normal((2, 13, 11, 5)).astype("float32")
    y = keras.ops.convert_to_numpy(SoftSplit(kernel, strides, padding)(x))
    for image, tokens in zip(x, y, strict=True):
        windows, (rows, columns) = unfold(image, kernel, strides, padding)  # in (channel, row, column) order
        windows = windows.reshape(rows, columns, 5, kernel, kernel).transpose(0, 1, 3, 4, 2)
        np.testing.assert_array_equal(tokens, windows.reshape(rows, columns, -1))


def test_output_shape_of_known_and_unknown_sizes():
    layer = SoftSplit(7, 4, 2)
    assert layer.compute_output_shape((None, 224, 97, 3)) == (None, 56, 24, 147)
    assert layer.compute_output_shape((None, None, 97, 3)) == (None, None, 24, 147)


def test_invalid_ranks_small_grids_and_invalid_splits_raise():
    with pytest.raises(
        ValueError, match=r"expected a token grid \(batch, height, width, channels\); received: input_shape=\(2, 9, 3\)"
    ):
        SoftSplit(3, 2, 1)(keras.KerasTensor((2, 9, 3)))
    with pytest.raises(ValueError, match=r"large enough for one token.*height=2, width=9"):
        SoftSplit(3, 2)(keras.KerasTensor((1, 2, 9, 4)))
    with pytest.raises(ValueError, match=r"large enough for one token.*height=2, width=9"):
        SoftSplit(3, 2)(np.zeros((1, 2, 9, 4), "float32"))
    with pytest.raises(ValueError, match=r"expected a token grid"):
        SoftSplit(3, 2)(np.zeros((2, 9, 3), "float32"))
    with pytest.raises(ValueError, match=r"padding < kernel; received: soft_splits=\[\(3, 2, 3\)\]"):
        SoftSplit(3, 2, 3)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compares with TensorFlow")
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_windows_and_gradients_equal_those_of_tensorflow(batch):
    import tensorflow as tf

    x = tf.constant(np.random.default_rng(1).standard_normal((batch, 13, 10, 4)), "float32")

    def windows_and_gradient(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            windows = function(x)
            loss = tf.reduce_sum(windows * tf.cast(tf.reshape(tf.range(tf.size(windows)), tf.shape(windows)), "float32"))
        return windows, tape.gradient(loss, x)

    windows, gradient = windows_and_gradient(lambda x: extract_patches(x, 3, 2))
    arguments = ([1, 3, 3, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID")
    np.testing.assert_array_equal(windows, tf.image.extract_patches(x, *arguments))
    if batch:  # the gradient of `tf.image.extract_patches` does not support an empty batch
        np.testing.assert_array_equal(gradient, windows_and_gradient(lambda x: tf.image.extract_patches(x, *arguments))[1])
    else:
        assert gradient.shape == (0, 13, 10, 4)
