"""Training with `model.fit`: models overfit real digits, trainable weights change, and frozen weights do not."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import keras_t2t
from tests.conftest import SMALL_CONFIGS, mostly_slow

DIGITS = keras_t2t.T2TConfig(
    soft_splits=((3, 1, 1), (3, 2, 1), (3, 1, 1)), token_dim=16, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2.0
)


@pytest.fixture
def digits():
    data = load_digits()
    return data.images[:32, ..., None] * (255 / 16), data.target[:32]


def build(config=DIGITS, classes=10):
    model = keras_t2t.T2TViT(config, input_shape=(8, 8, 1), classes=classes)
    model.compile(keras.optimizers.AdamW(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)  # or TensorFlow traces the training step twice
    return model


@pytest.mark.slow
def test_model_overfits_real_digits(digits):
    model = build()
    repeated = [np.concatenate([array] * 30) for array in digits]  # Keras takes long to start an epoch
    model.fit(*repeated, epochs=10, batch_size=32, shuffle=False, verbose=0)
    assert model.evaluate(*digits, verbose=0)[1] == 1.0


@pytest.mark.parametrize("kind", mostly_slow(SMALL_CONFIGS, "performer"))
def test_one_step_changes_trainable_weights_only(kind):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[kind])
    model = keras_t2t.T2TViT(config, input_shape=(31, 23, 3), classes=5)
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    # At initialization, some weights have no gradient yet.
    model.set_weights([value + 0.1 * rng.standard_normal(value.shape) for value in model.get_weights()])
    before = {w.path: w.numpy() for w in model.weights}
    model.fit(rng.uniform(0, 255, (8, 31, 23, 3)), rng.integers(0, 5, 8), batch_size=8, verbose=0)
    for weight in model.weights:
        changed = not np.array_equal(before[weight.path], weight.numpy())
        assert changed == weight.trainable, weight.path
    frozen = {w.path for w in model.weights if not w.trainable}
    expected = {"position_embedding/table"} if not config.learned_positions else set()
    if config.token_attention == "performer":
        expected |= {f"tokens_to_token/attention{i}/random_features" for i in (1, 2)}
    assert frozen == expected


@pytest.mark.slow
def test_xla_matches_graph_mode(digits):
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        config = keras_t2t.T2TConfig(
            **{**SMALL_CONFIGS["performer"], "soft_splits": ((3, 2, 1), (3, 1, 1))}, token_drop_rate=0.0
        )
        model = build(config)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=jit_compile)
        losses.append(model.fit(*digits, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_dropout_and_drop_path_are_inactive_at_inference(digits):
    rates = {"drop_rate": 0.3, "attention_drop_rate": 0.3, "drop_path_rate": 0.3}
    model = build(keras_t2t.T2TConfig(**SMALL_CONFIGS["transformer"] | {"soft_splits": ((3, 1, 1), (3, 2, 1))}, **rates))
    x = digits[0]
    inference = model(x, training=False).numpy()
    np.testing.assert_array_equal(model(x).numpy(), inference)
    assert not np.array_equal(model(x, training=True).numpy(), inference)
