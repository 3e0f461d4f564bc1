"""Compares the counts derived from the configuration with the matrix products in the TensorFlow graph of the model."""

import dataclasses
import math

import keras
import pytest

import keras_t2t
from keras_t2t.analysis import multiply_accumulates
from keras_t2t.analysis.macs import matrix_products
from keras_t2t.variants import VARIANTS
from tests.conftest import SMALL_CONFIGS, mostly_slow

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="inspects a TensorFlow graph")


def graph_products(model):
    """Returns the number of output elements and the inner dimension of every matrix product in the graph."""
    import tensorflow as tf

    function = tf.function(lambda images: model(images, training=False))
    graph = function.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]))).graph
    products = []
    for operation in graph.get_operations():
        if operation.type in ("MatMul", "BatchMatMulV2"):
            adjoint = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
            products.append((math.prod(operation.outputs[0].shape), operation.inputs[0].shape[-2 if adjoint else -1]))
        assert operation.type not in ("Einsum", "Conv2D")
    return products


def graph_macs(model):
    return sum(outputs * inner for outputs, inner in graph_products(model))


@pytest.mark.parametrize("variant", mostly_slow(VARIANTS, "t2t_vit_7"))
def test_variants(variant):
    """With few blocks. The number of blocks is that of the configuration, which others compare with the published models."""
    config = VARIANTS[variant].config
    config = dataclasses.replace(config, depth=(2, 1) if config.block == "dense" else 2)
    model = keras_t2t.T2TViT(config, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    counts = multiply_accumulates(config)
    assert graph_macs(model) + counts["head"] == sum(counts.values())
    assert counts["head"] == config.feature_dim * 1000


@pytest.mark.parametrize("name", mostly_slow(SMALL_CONFIGS, "performer", "dense"))
def test_odd_image_sizes(name):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[name])
    model = keras_t2t.T2TViT(config, include_top=False, pooling="avg", input_shape=(31, 46, 2))
    assert graph_macs(model) == sum(multiply_accumulates(config, (31, 46), 2, 0).values())


@pytest.mark.parametrize("include_top", [True, False])
@pytest.mark.parametrize("name", mostly_slow(SMALL_CONFIGS, "performer", "dense"))
def test_every_single_product(name, include_top):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[name])
    model = keras_t2t.T2TViT(config, include_top, input_shape=(31, 46, 2), classes=7 if include_top else None)
    stages = matrix_products(config, (31, 46), 2, 7 if include_top else 0, class_token_only=include_top)
    expected = [(product.outputs, product.inner) for products in stages.values() for product in products if product.outputs]
    assert sorted(expected) == sorted(graph_products(model))
