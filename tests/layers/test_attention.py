import keras
import numpy as np
import pytest

from keras_t2t.layers import MultiHeadSelfAttention
from keras_t2t.layers.attention import attention_weights
from keras_t2t.layers.ghost_block import GhostAttention
from keras_t2t.layers.squeeze_excite_block import SqueezeExciteAttention
from tests.conftest import relative_error


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def test_attention_weights_are_a_softmax_over_the_keys():
    q, k = normal(2, 3, 5, 7), normal(2, 3, 11, 7, seed=1)
    weights = keras.ops.convert_to_numpy(attention_weights(q, k, 0.3))
    exponentials = np.exp(0.3 * np.einsum("bhnd,bhmd->bhnm", q, k))
    np.testing.assert_allclose(weights, exponentials / exponentials.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)


def test_output_matches_a_computation_of_one_head_at_a_time():
    layer = MultiHeadSelfAttention(3, qkv_bias=True)
    x = normal(2, 7, 12)
    layer.build(x.shape)
    for i, weight in enumerate(layer.weights):
        weight.assign(0.3 * normal(*weight.shape, seed=i))
    kernel, bias, out, out_bias = (keras.ops.convert_to_numpy(w) for w in layer.weights)
    q, k, v = np.split(x @ kernel + bias, 3, axis=-1)
    heads = []
    for h in range(3):
        channels = slice(4 * h, 4 * h + 4)
        scores = np.exp(q[..., channels] @ k[..., channels].transpose(0, 2, 1) / 2)  # 2 is the square root of the head width
        heads.append(scores / scores.sum(-1, keepdims=True) @ v[..., channels])
    expected = np.concatenate(heads, -1) @ out + out_bias
    assert relative_error(keras.ops.convert_to_numpy(layer(x)), expected) < 1e-6


@pytest.mark.parametrize("attention", [MultiHeadSelfAttention, GhostAttention, SqueezeExciteAttention])
def test_apply_attention_to_the_computed_weights_returns_the_output(attention):
    layer, x = attention(3), normal(2, 7, 12)
    y = keras.ops.convert_to_numpy(layer(x))
    weights, values = layer.compute_weights(x, x)
    assert weights.shape == (2, 3, 7, 7) and values.shape == (2, 3, 7, 4)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer.apply_attention(weights, values)), y)


@pytest.mark.parametrize("attention", [MultiHeadSelfAttention, GhostAttention, SqueezeExciteAttention])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_class_token_only_returns_the_first_token(attention, qkv_bias):
    x = normal(2, 7, 12)
    full, class_only = (attention(3, qkv_bias=qkv_bias, class_token_only=flag) for flag in (False, True))
    full.build(x.shape)
    class_only.build(x.shape)
    assert [w.shape for w in full.weights] == [w.shape for w in class_only.weights]
    values = [0.3 * normal(*w.shape, seed=i) for i, w in enumerate(full.weights)]
    full.set_weights(values)
    class_only.set_weights(values)
    y = keras.ops.convert_to_numpy(class_only(x))
    assert y.shape == (2, 1, 12) == class_only.compute_output_shape(x.shape)
    assert relative_error(y, keras.ops.convert_to_numpy(full(x))[:, :1]) < 1e-6


def test_invalid_heads_and_ranks_raise():
    with pytest.raises(ValueError, match="num_heads to divide the width of the tokens; received: num_heads=5, width=12"):
        MultiHeadSelfAttention(5)(normal(1, 2, 12))
    with pytest.raises(ValueError, match="expected num_heads to be a positive integer; received: num_heads=0"):
        MultiHeadSelfAttention(0)
    with pytest.raises(ValueError, match=r"expected a sequence of tokens .*; received: input_shape=\(2, 12\)"):
        MultiHeadSelfAttention(3)(normal(2, 12))
