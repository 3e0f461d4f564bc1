"""The structure of models, and the configuration read from their layers."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_t2t
from keras_t2t.configs import token_grid
from tests.conftest import SMALL_CONFIGS
from tests.micro import MICRO


def test_config_of_a_cloned_model(small_config):
    """The names of the layers do not matter."""
    model, names = keras_t2t.T2TViT(small_config, input_shape=(31, 23, 2), classes=3), itertools.count()

    def renamed(layer):
        return type(layer).from_config({**layer.get_config(), "name": f"layer{next(names)}"})

    assert keras_t2t.config_of(keras.models.clone_model(model, clone_function=renamed)) == small_config


def test_drop_path_rate_grows_linearly_over_the_blocks():
    model = keras_t2t.T2TViT7(weights=None, drop_path_rate=0.3, drop_rate=0.1, attention_drop_rate=0.2)
    blocks = [layer for layer in model.layers if isinstance(layer, keras_t2t.layers.EncoderBlock)]
    np.testing.assert_allclose([block.drop_path_rate for block in blocks], 0.05 * np.arange(7))
    assert {block.drop_rate for block in blocks} == {0.1} == {model.get_layer("dropout").rate}
    assert {block.attention_drop_rate for block in blocks} == {0.2}


def test_only_the_last_block_of_a_classifier_computes_just_the_class_token():
    def flags(**kwargs):
        model = keras_t2t.T2TViT7(weights=None, **kwargs)
        return [layer.class_token_only for layer in model.layers if isinstance(layer, keras_t2t.layers.EncoderBlock)]

    assert flags() == [False] * 6 + [True]
    assert flags(include_top=False, pooling="token") == [False] * 6 + [True]
    assert flags(include_top=False) == [False] * 7


@pytest.mark.parametrize(("kind", "quadratic"), [("performer", False), ("transformer", True)])
def test_no_tensor_of_the_performer_is_quadratic_in_the_number_of_tokens(kind, quadratic):
    """Looks for tensors of shape `(..., N, N)` in the graph, where N is the number of tokens after the first soft split."""
    config = keras_t2t.T2TConfig(
        **{**SMALL_CONFIGS["performer"], "token_attention": kind, "soft_splits": ((3, 1, 1), (5, 3, 2))}
    )
    model = keras_t2t.T2TViT(config, input_shape=(13, 11, 3), classes=5)
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((2, 13, 11, 3))).graph
    shapes = {tuple(tensor.shape) for op in graph.get_operations() for tensor in op.outputs if tensor.shape.rank is not None}
    assert any(143 in shape for shape in shapes)
    assert any(shape[-2:] == (143, 143) for shape in shapes) == quadratic


def test_the_last_block_of_a_classifier_computes_the_mlp_for_one_token():
    config = keras_t2t.T2TConfig(**{**SMALL_CONFIGS["performer"], "depth": 1})
    shapes = {}
    for pooling in ("token", "avg"):
        model = keras_t2t.T2TViT(config, include_top=False, pooling=pooling, input_shape=(31, 23, 3))
        graph = tf.function(model).get_concrete_function(tf.TensorSpec((2, 31, 23, 3))).graph
        # The shape of the MLP's hidden layer, which has 36 channels.
        shapes[pooling] = {
            tuple(op.outputs[0].shape) for op in graph.get_operations() if "fc1" in op.name and op.type == "MatMul"
        }
    tokens = 1 + np.prod(token_grid(config.soft_splits, 31, 23))
    assert (2 * 1, 36) in shapes["token"]
    assert (2 * tokens, 36) in shapes["avg"] - shapes["token"]


@pytest.mark.parametrize("dtype", ["mixed_float16", "float64"])
def test_all_layers_have_the_dtype_of_the_model(small_config, dtype):
    model = keras_t2t.T2TViT(small_config, input_shape=(31, 23, 3), classes=5, dtype=dtype)
    for layer in model._flatten_layers(include_self=False):
        if layer.name not in ("images", "predictions"):
            assert layer.dtype_policy.name == dtype, layer.name
    assert model.get_layer("predictions").compute_dtype == ("float64" if dtype == "float64" else "float32")


@pytest.mark.parametrize("dtype", [keras.DTypePolicy("mixed_bfloat16"), np.dtype("float32")])
def test_a_dtype_may_be_a_policy_or_a_numpy_dtype(dtype, tmp_path):
    model = keras_t2t.T2TViT(MICRO, input_shape=(31, 23, 3), classes=5, dtype=dtype)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 31, 23, 3)).astype("float32")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(images), model(images))
    assert keras_t2t.segmenter(model, 3, image_size=(31, 23))(images).shape == (2, 31, 23, 3)
