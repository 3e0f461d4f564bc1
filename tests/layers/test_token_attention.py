import keras
import numpy as np
import pytest

from keras_t2t.layers import TokenPerformer, TokenTransformer
from keras_t2t.layers.token_performer import performer_attention, performer_features
from tests.conftest import relative_error
from tests.numpy_t2t import softmax


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def test_performer_attention_matches_explicit_attention_of_its_features():
    q, k, v, w = normal(2, 13, 6), normal(2, 13, 6, seed=1), normal(2, 13, 6, seed=2), normal(5, 6, seed=3)
    y = keras.ops.convert_to_numpy(performer_attention(q, k, v, w))
    phi_q, phi_k = (keras.ops.convert_to_numpy(performer_features(x, w)) for x in (q, k))
    attention = phi_q @ phi_k.transpose(0, 2, 1)  # (2, 13, 13)
    expected = attention @ v / (attention.sum(-1, keepdims=True) + 1e-8)
    assert relative_error(y, expected) < 1e-6


@pytest.mark.parametrize("layer_class", [TokenPerformer, TokenTransformer])
def test_weights_times_values_is_the_attention_output(layer_class):
    layer = layer_class(6)
    layer.build((None, 11, 9))
    queries, keys, values = layer.project_heads(layer.norm1(normal(2, 11, 9)))
    weights = keras.ops.convert_to_numpy(layer.compute_weights(queries[:, 3:8], keys))
    assert weights.shape == (2, 5, 11)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    output = keras.ops.convert_to_numpy(layer.apply_attention(queries, keys, values))
    assert relative_error(weights @ keras.ops.convert_to_numpy(values), output[:, 3:8]) < 1e-6


def test_many_performer_features_approximate_softmax_attention():
    q, k, v = (0.5 * normal(1, 7, 4, seed=seed) for seed in range(3))
    random_features = normal(200_000, 4, seed=4)
    expected = softmax(q @ k.transpose(0, 2, 1)) @ v
    assert relative_error(keras.ops.convert_to_numpy(performer_attention(q, k, v, random_features)), expected) < 0.05


def test_random_features_are_orthogonal_and_frozen_with_norm_sqrt_m():
    layer = TokenPerformer(12)
    layer.build((None, 5, 20))
    w = keras.ops.convert_to_numpy(layer.random_features)
    np.testing.assert_allclose(w @ w.T, 6 * np.eye(6), atol=1e-5)
    layer.trainable = True
    assert not any(weight is layer.random_features for weight in layer.trainable_weights)


@pytest.mark.parametrize("scale", [1.0, 3.0, 6.0, 30.0])
def test_performer_attention_matches_the_reference_formula_where_its_epsilon_matters(scale):
    q, k, v, w = scale * normal(1, 13, 6), normal(1, 13, 6, seed=1), normal(1, 13, 6, seed=2), normal(5, 6, seed=3)
    phi_q, phi_k = (np.exp(x @ w.T - (x**2).sum(-1, keepdims=True) / 2) / 5**0.5 for x in map(np.float64, (q, k)))
    attention = phi_q @ phi_k.transpose(0, 2, 1)
    expected = attention @ v / (attention.sum(-1, keepdims=True) + 1e-8)
    received = keras.ops.convert_to_numpy(performer_attention(q, k, v, w))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)


def test_performer_output_is_finite_if_all_features_underflow():
    layer = TokenPerformer(4)
    layer.build((None, 3, 8))
    layer.kqv.set_weights([np.full(weight.shape, 100.0) for weight in layer.kqv.weights])
    y = keras.ops.convert_to_numpy(layer(normal(1, 3, 8)))
    assert np.isfinite(y).all()


def test_transformer_scales_scores_by_the_input_width():
    layer = TokenTransformer(4)
    x = normal(2, 5, 9)
    layer.build(x.shape)
    assert layer.scale == pytest.approx(1 / 3)


def test_performer_has_dropout_in_training_and_transformer_has_none():
    x = normal(2, 11, 9)
    performer, transformer = TokenPerformer(6, drop_rate=0.5), TokenTransformer(6)
    performer_output = keras.ops.convert_to_numpy(performer(x, training=False))
    np.testing.assert_array_equal(performer_output, keras.ops.convert_to_numpy(performer(x, training=False)))
    assert relative_error(keras.ops.convert_to_numpy(performer(x, training=True)), performer_output) > 1e-3
    transformer_output = keras.ops.convert_to_numpy(transformer(x, training=False))
    np.testing.assert_array_equal(transformer_output, keras.ops.convert_to_numpy(transformer(x, training=True)))


def test_grids_raise():
    with pytest.raises(
        ValueError, match=r"expected a sequence of tokens \(batch, tokens, width\); received: input_shape=\(2, 3, 4, 5\)"
    ):
        TokenPerformer()(normal(2, 3, 4, 5))
