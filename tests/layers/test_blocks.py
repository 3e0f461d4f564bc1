import keras
import numpy as np
import pytest

from keras_t2t.layers import DenseBlock, EncoderBlock, GhostBlock, SqueezeExciteBlock
from keras_t2t.layers.ghost_block import GhostDense, GhostMLP
from tests.conftest import relative_error

BLOCKS = {
    "standard": lambda **kwargs: EncoderBlock(3, 2.0, **kwargs),
    "squeeze_excite": lambda **kwargs: SqueezeExciteBlock(3, 2.0, **kwargs),
    "ghost": lambda **kwargs: GhostBlock(3, 3.0, **kwargs),
    "dense": lambda **kwargs: DenseBlock(5, 3, mlp_ratio=2.0, **kwargs),
}


@pytest.fixture(params=BLOCKS)
def block(request):
    return BLOCKS[request.param]


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((2, 7, 12)).astype("float32")


def test_class_token_only_returns_the_first_token(block, x):
    full, class_only = block(), block(class_token_only=True)
    full.build(x.shape)
    class_only.build(x.shape)
    class_only.set_weights(full.get_weights())
    y = keras.ops.convert_to_numpy(class_only(x))
    assert y.shape == class_only.compute_output_shape(x.shape)
    assert relative_error(y, keras.ops.convert_to_numpy(full(x))[:, :1]) < 1e-6


def test_drop_path_drops_residual_branches_per_sample(x):
    block = EncoderBlock(3, drop_path_rate=0.9)
    repeated = np.repeat(x[:1], 500, axis=0)
    y = keras.ops.convert_to_numpy(block(repeated, training=True))
    unchanged = np.all(np.abs(y - repeated) < 1e-6, axis=(1, 2))
    assert 0.9**2 - 0.1 < unchanged.mean() < 0.9**2 + 0.1


@pytest.mark.parametrize("rates", [{"drop_rate": 0.5}, {"attention_drop_rate": 0.5}, {"drop_path_rate": 0.5}])
def test_every_drop_rate_is_used_in_training_only(block, x, rates):
    layer = block(**rates)
    layer.build(x.shape)
    layer.set_weights([10 * weight for weight in layer.get_weights()])
    inference = keras.ops.convert_to_numpy(layer(x, training=False))
    np.testing.assert_array_equal(inference, keras.ops.convert_to_numpy(layer(x)))
    runs = [keras.ops.convert_to_numpy(layer(x, training=True)) for _ in range(8)]
    assert max(relative_error(run, inference) for run in runs) > 1e-4


@pytest.mark.skipif(not hasattr(keras, "remat"), reason="needs keras.remat")
def test_rematerialization_does_not_change_a_training_step(block, x):
    inputs = keras.Input(x.shape[1:])
    weights = []
    for rematerialize in (False, True):
        keras.utils.set_random_seed(1)
        layer = block(drop_path_rate=0.5)
        layer.rematerialize = rematerialize
        model = keras.Model(inputs, layer(inputs))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        y = np.zeros((2, 7, model.output_shape[-1]), "float32")
        losses = [float(model.train_on_batch(x, y)) for _ in range(3)]
        weights.append([np.array(losses), *model.get_weights()])
    for plain, rematerialized in zip(*weights, strict=True):
        np.testing.assert_allclose(rematerialized, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="variables change in place on TensorFlow only")
@pytest.mark.skipif(not hasattr(keras, "remat"), reason="needs keras.remat")
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_rematerialization_uses_the_weights_of_the_forward_pass(block, x, mode):
    """The optimizer may change the weights while TensorFlow still computes gradients."""
    import tensorflow as tf

    def gradients(rematerialize):
        keras.utils.set_random_seed(1)
        layer = block()
        layer.build(x.shape)
        layer.rematerialize = rematerialize
        variables = [variable.value for variable in layer.trainable_variables]

        def step():
            with tf.GradientTape() as tape:
                y = layer(x, training=True)
            for variable in variables:
                variable.assign(7 * variable)
            return tape.gradient(y, variables)

        return (tf.function(step) if mode == "graph" else step)()

    for rematerialized, plain in zip(gradients(True), gradients(False), strict=True):
        assert relative_error(rematerialized, plain) < 1e-5


def test_rematerialization_refuses_dropout(x):
    layer = EncoderBlock(3, attention_drop_rate=0.2)
    layer.rematerialize = True
    assert layer(x, training=False).shape == x.shape
    message = r"encoder_block.*: cannot compute dropout again .* received: drop_rate=0\.0, attention_drop_rate=0\.2"
    with pytest.raises(ValueError, match=message):
        layer(x, training=True)


def test_dense_block_appends_channels_to_its_input(x):
    y = keras.ops.convert_to_numpy(DenseBlock(5, 3)(x))
    assert y.shape == (2, 7, 17)
    np.testing.assert_array_equal(y[..., :12], x)


def test_second_half_of_ghost_dense_is_a_scaled_copy(x):
    layer = GhostDense(8)
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(y[..., 4:], y[..., :4] * keras.ops.convert_to_numpy(layer.scale), rtol=1e-6)


def test_ghost_layers_raise_for_indivisible_widths():
    with pytest.raises(ValueError, match="even number of units; received: units=7"):
        GhostDense(7)
    with pytest.raises(ValueError, match="divisible by 3; received: hidden_dim=16"):
        GhostMLP(16)
