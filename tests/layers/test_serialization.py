"""Tests for every layer: configs survive a round trip, and sublayers get the dtype of the layer."""

import keras
import numpy as np
import pytest

from keras_t2t import Preprocessing, layers

LAYERS = {
    "ClassToken": (layers.ClassToken(), (3, 5, 12)),
    "FastDense": (layers.FastDense(7, activation="gelu", use_bias=False, kernel_initializer="ones"), (5, 12)),
    "DenseBlock": (layers.DenseBlock(5, 2, mlp_ratio=1.5, qkv_bias=True, class_token_only=True), (5, 12)),
    "DropPath": (layers.DropPath(0.3, seed=4), (5, 12)),
    "EncoderBlock": (
        layers.EncoderBlock(
            4,
            1.5,
            qkv_bias=True,
            norm_epsilon=1e-3,
            drop_rate=0.1,
            attention_drop_rate=0.2,
            drop_path_rate=0.3,
            class_token_only=True,
        ),
        (5, 12),
    ),
    "FeatureMap": (layers.FeatureMap(), None),
    "GhostBlock": (layers.GhostBlock(2, 3.0, drop_rate=0.1), (5, 12)),
    "ImageNormalization": (layers.ImageNormalization(Preprocessing(mean=(0.5, 0.4), std=(0.3, 0.2))), (7, 6, 2)),
    "FastLayerNorm": (layers.FastLayerNorm(epsilon=0.5), (5, 12)),
    "MLP": (layers.MLP(7, 0.3), (5, 12)),
    "MultiHeadSelfAttention": (layers.MultiHeadSelfAttention(3, True, 0.1, 0.2, True), (5, 12)),
    "PositionEmbedding": (layers.PositionEmbedding((2, 2), learned=True), (5, 12)),
    "Predictions": (layers.Predictions("softmax", ["a", "b", "c"]), (5, 3)),
    "ResizeLike": (layers.ResizeLike(), None),
    "SoftSplit": (layers.SoftSplit(5, 3, 2), (7, 6, 2)),
    "SqueezeExciteBlock": (layers.SqueezeExciteBlock(2, 1.0), (5, 12)),
    "TokenPerformer": (layers.TokenPerformer(6, 0.3), (5, 12)),
    "TokenTransformer": (layers.TokenTransformer(6, 0.3), (5, 12)),
    "TokensToToken": (layers.TokensToToken(8, "transformer", 6, ((3, 2, 1), (2, 1, 0)), 0.2), (7, 6, 2)),
}


def test_every_public_layer_is_tested():
    assert set(LAYERS) == set(layers.__all__)


@pytest.mark.parametrize("name", LAYERS)
def test_config_round_trip(name):
    layer, shape = LAYERS[name]
    config = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == layer.get_config()
    if shape is not None:
        x = np.random.default_rng(0).standard_normal((2, *shape)).astype("float32")
        layer(x)
        copy(x)
        copy.set_weights(layer.get_weights())
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(copy(x)), keras.ops.convert_to_numpy(layer(x)))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float16"])
def test_sublayers_and_weights_have_the_dtype_of_the_layer(name, dtype):
    layer, shape = LAYERS[name]
    copy = type(layer).from_config({**layer.get_config(), "dtype": dtype})
    if shape is not None:
        y = copy(np.zeros((2, *shape), "float32"))
        assert keras.backend.standardize_dtype(y.dtype) == copy.compute_dtype
    for sublayer in copy._flatten_layers():
        assert sublayer.dtype_policy.name == dtype, sublayer.path
    for weight in copy.weights:
        # The performer computes in float32, so its random features stay in float32.
        expected = "float32" if weight.name == "random_features" else copy.variable_dtype
        assert weight.dtype == expected, weight.path
