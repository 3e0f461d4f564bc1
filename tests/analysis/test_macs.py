"""The count from the configuration is that of the matrix products in TensorFlow's graph of the model."""

import math

import keras
import pytest

import keras_t2t
from keras_t2t.analysis import multiply_accumulates
from keras_t2t.configs import VARIANTS
from tests.conftest import SMALL_CONFIGS

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts in a graph of TensorFlow")


def products_in_the_graph(model):
    import tensorflow as tf

    function = tf.function(lambda images: model(images, training=False))
    graph = function.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]))).graph
    count = 0
    for operation in graph.get_operations():
        if operation.type in ("MatMul", "BatchMatMulV2"):
            adjoint = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
            count += math.prod(operation.outputs[0].shape) * operation.inputs[0].shape[-2 if adjoint else -1]
        assert operation.type not in ("Einsum", "Conv2D")
    return count


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant):
    model = keras_t2t.T2TViT(variant, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    counts = multiply_accumulates(VARIANTS[variant])
    assert products_in_the_graph(model) + counts["head"] == sum(counts.values())
    assert counts["head"] == VARIANTS[variant].feature_dim * 1000


@pytest.mark.parametrize("name", SMALL_CONFIGS)
def test_odd_sizes(name):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[name])
    model = keras_t2t.T2TViT(config, include_top=False, pooling="avg", input_shape=(31, 46, 2))
    assert products_in_the_graph(model) == sum(multiply_accumulates(config, (31, 46), 2, 0).values())


def test_published_counts():
    """4.8 G and 6.1 G in the authors' table of T2T-ViT-14 and T2T-ViT_t-14."""
    totals = [round(sum(multiply_accumulates(VARIANTS[name]).values()) / 1e9, 1) for name in ("t2t_vit_14", "t2t_vit_t_14")]
    assert totals == [4.8, 6.1]
