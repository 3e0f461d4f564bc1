"""Tests of the class token, feature map, dense, layer norm and MLP layers, and of the T2T module."""

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.layers import (
    MLP,
    ClassToken,
    FastDense,
    FastLayerNorm,
    FeatureMap,
    ImageNormalization,
    ResizeLike,
    TokensToToken,
)
from tests.conftest import relative_error
from tests.numpy_t2t import gelu


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float16"])
def test_normalized_images_are_rounded_once(dtype):
    preprocessing = keras_t2t.Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    images = np.repeat(np.arange(256.0)[:, None], 3, -1).reshape(1, 16, 16, 3).astype("float32")
    normalized = ImageNormalization(preprocessing, dtype=dtype)(images)
    assert keras.backend.standardize_dtype(normalized.dtype) == dtype.removeprefix("mixed_")
    exact = ((images.astype("float64") / 255 - preprocessing.mean) / preprocessing.std).astype("float32")
    rounded = keras.ops.cast(exact, normalized.dtype)
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in (normalized, rounded)))


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 15, 4)])
def test_class_token_comes_first_and_the_grid_follows_row_by_row(shape):
    x = normal(*shape)
    layer = ClassToken()
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(y[:, 1:], x.reshape(2, 15, 4))
    np.testing.assert_array_equal(y[:, 0], np.repeat(keras.ops.convert_to_numpy(layer.token)[0], 2, axis=0))
    assert layer.compute_output_shape(shape) == y.shape
    assert ClassToken().compute_output_shape((None, None, 5, 4)) == (None, None, 4)


def test_class_token_and_feature_map_raise_for_invalid_shapes():
    with pytest.raises(ValueError, match=r"expected tokens \(batch, \.\.\., width\); received: input_shape=\(7, 4\)"):
        ClassToken()(normal(7, 4))
    with pytest.raises(ValueError, match=r"a grid of 2x3 tokens, as given by `like`; received: tokens_shape=\(1, 8, 4\)"):
        FeatureMap()(normal(1, 8, 4), normal(1, 2, 3, 1))


def test_feature_map_is_the_inverse_of_class_token():
    x = normal(2, 3, 5, 4)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(FeatureMap()(ClassToken()(x), x)), x)


@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
def test_fast_dense_matches_keras_dense(activation):
    x = normal(2, 3, 5, 4)
    ours, keras_dense = FastDense(7, activation=activation), keras.layers.Dense(7, activation=activation)
    keras_dense.build(x.shape)
    ours.build(x.shape)
    values = [normal(4, 7, seed=1), normal(7, seed=2)]
    ours.set_weights(values)
    keras_dense.set_weights(values)
    assert relative_error(keras.ops.convert_to_numpy(ours(x)), keras.ops.convert_to_numpy(keras_dense(x))) < 1e-6


def test_fast_layer_norm_matches_keras_layer_normalization():
    x = 5 + 3 * normal(2, 7, 12)
    ours, keras_norm = FastLayerNorm(epsilon=0.1), keras.layers.LayerNormalization(epsilon=0.1)
    values = [normal(12, seed=1), normal(12, seed=2)]
    for layer in (ours, keras_norm):
        layer.build(x.shape)
        layer.set_weights(values)
    assert relative_error(keras.ops.convert_to_numpy(ours(x)), keras.ops.convert_to_numpy(keras_norm(x))) < 1e-6


def test_mlp_uses_exact_gelu():
    x = normal(2, 3, 4)
    layer = MLP(9)
    layer.build(x.shape)
    layer.set_weights([normal(*w.shape, seed=i) for i, w in enumerate(layer.weights)])
    kernel1, bias1, kernel2, bias2 = (keras.ops.convert_to_numpy(w).astype("float64") for w in layer.weights)
    expected = gelu(x @ kernel1 + bias1) @ kernel2 + bias2
    assert relative_error(keras.ops.convert_to_numpy(layer(x)), expected) < 1e-6


def test_kernels_are_initialized_from_a_truncated_normal_and_biases_with_zeros():
    layer = FastDense(300)
    layer.build((None, 200))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    assert np.abs(kernel).max() <= 0.0401
    assert abs(kernel.std() - 0.02 * 0.88) < 0.0005  # a normal truncated at two stds has 0.88 of its std
    assert not keras.ops.convert_to_numpy(layer.bias).any()


def test_convolution_module_matches_a_stack_of_convolutions():
    layer = TokensToToken(6, "convolution", token_dim=4, soft_splits=((3, 2, 1), (2, 2, 0)))
    x = normal(2, 11, 9, 3)
    layer.build(x.shape)
    first, second = layer.attentions[0], layer.projection
    y = keras.ops.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    for dense, kernel in ((first, 3), (second, 2)):
        weights = keras.ops.reshape(dense.kernel, (kernel, kernel, -1, dense.units))
        y = keras.ops.conv(y, weights, strides=2, padding="valid", data_format="channels_last") + dense.bias
    assert relative_error(keras.ops.convert_to_numpy(layer(x)), keras.ops.convert_to_numpy(y)) < 1e-5


def test_module_raises_for_invalid_ranks_small_images_and_unknown_attention():
    with pytest.raises(ValueError, match=r"expected images \(batch, height, width, channels\)"):
        TokensToToken(8)(keras.KerasTensor((2, 9, 3)))
    with pytest.raises(ValueError, match="large enough for one token"):
        TokensToToken(8, soft_splits=((7, 4, 0), (3, 2, 0)))(keras.KerasTensor((1, 14, 40, 3)))
    with pytest.raises(ValueError, match=r"token_attention: expected one of .*; received: token_attention='linear'"):
        TokensToToken(8, "linear")


@pytest.mark.parametrize("size", [(7, 9), (14, 5), (3, 23)])
def test_resize_like_interpolates_between_the_centers_of_pixels(size):
    """As `np.interp` does, along one axis and then along the other."""
    x = normal(2, 5, 8, 3)
    rows, columns = ((np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(size, (5, 8), strict=True))
    expected = np.apply_along_axis(lambda values: np.interp(rows, np.arange(5), values), 1, x)
    expected = np.apply_along_axis(lambda values: np.interp(columns, np.arange(8), values), 2, expected)
    layer = ResizeLike()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x, normal(2, *size, 4))), expected, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape(x.shape, (2, *size, 4)) == expected.shape
    with pytest.raises(ValueError, match=r"expected feature maps \(batch, height, width, channels\); received"):
        ResizeLike()(normal(2, 5, 8), normal(2, *size, 4))


@pytest.fixture
def floatx_of_16_bits():
    keras.config.set_floatx("bfloat16")
    yield
    keras.config.set_floatx("float32")


def test_interpolation_does_not_depend_on_floatx(floatx_of_16_bits):
    """With a `floatx` of 16 bits, Keras would count in 16 bits, which TensorFlow's graphs do not support."""
    x = normal(1, 3, 4, 2)
    y = keras.Sequential([keras.Input((None, None, 2), dtype="float32"), Twice(dtype="float32")]).predict(x, verbose=0)
    np.testing.assert_allclose(y[0, :, 0, 0], np.interp(np.arange(6) / 2 - 0.25, np.arange(3), x[0, :, 0, 0]), atol=0.01)


class Twice(keras.layers.Layer):
    def call(self, x):
        return ResizeLike(dtype="float32")(x, keras.ops.repeat(keras.ops.repeat(x, 2, 1), 2, 2))
