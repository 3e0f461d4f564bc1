"""The count from the configuration is that of the matrix products in TensorFlow's graph of the model."""

import math

import keras
import pytest

import keras_t2t
from keras_t2t.analysis import multiply_accumulates
from keras_t2t.analysis.macs import matrix_products
from keras_t2t.configs import VARIANTS
from tests.conftest import SMALL_CONFIGS

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts in a graph of TensorFlow")


def products_in_the_graph(model):
    """The numbers in the result of every matrix product of the graph, and how many products each is the sum of."""
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


def count_in_the_graph(model):
    return sum(outputs * inner for outputs, inner in products_in_the_graph(model))


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant):
    model = keras_t2t.T2TViT(variant, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    counts = multiply_accumulates(VARIANTS[variant].config)
    assert count_in_the_graph(model) + counts["head"] == sum(counts.values())
    assert counts["head"] == VARIANTS[variant].config.feature_dim * 1000


@pytest.mark.parametrize("name", SMALL_CONFIGS)
def test_odd_sizes(name):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[name])
    model = keras_t2t.T2TViT(config, include_top=False, pooling="avg", input_shape=(31, 46, 2))
    assert count_in_the_graph(model) == sum(multiply_accumulates(config, (31, 46), 2, 0).values())


@pytest.mark.parametrize("include_top", [True, False])
@pytest.mark.parametrize("name", SMALL_CONFIGS)
def test_every_product_one_by_one(name, include_top):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[name])
    model = keras_t2t.T2TViT(config, include_top, input_shape=(31, 46, 2), classes=7 if include_top else None)
    stages = matrix_products(config, (31, 46), 2, 7 if include_top else 0, class_token_only=include_top)
    counted = [(product.outputs, product.inner) for products in stages.values() for product in products if product.outputs]
    assert sorted(counted) == sorted(products_in_the_graph(model))
