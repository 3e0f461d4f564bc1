"""16-bit policies: outputs and gradients are finite and close to float32, even for inputs that are 100 times too large."""

import keras
import numpy as np
import pytest

import keras_t2t
from tests.conftest import SMALL_CONFIGS, relative_error, seeded_parameters
from tests.reference_parameters import reference_images

TOLERANCE = {"mixed_float16": 1e-2, "mixed_bfloat16": 8e-2}
SIZE = (37, 29)


def build(kind, dtype):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[kind], token_drop_rate=0.0)
    model = keras_t2t.T2TViT(
        config, input_shape=(*SIZE, 3), classes=7, include_preprocessing=False, classifier_activation=None, dtype=dtype
    )
    keras_t2t.load_checkpoint(model, seeded_parameters(config, SIZE, classes=7))
    return model


def gradients(model, x):
    """Returns the gradient of the mean squared logit with respect to every trainable weight."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(model(x, training=True)))
        return [np.asarray(g) for g in tape.gradient(loss, [w.value for w in model.trainable_weights])]
    import jax

    def loss(trainable):
        state = [w.value for w in model.non_trainable_variables]
        return keras.ops.mean(keras.ops.square(model.stateless_call(trainable, state, x, training=True)[0]))

    return [np.asarray(g) for g in jax.jit(jax.grad(loss))([w.value for w in model.trainable_weights])]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["performer", "transformer"])
def test_outputs_and_gradients_are_finite_and_close_to_float32(kind, dtype):
    mixed, full = build(kind, dtype), build(kind, "float32")
    for scale in (1, 100):
        x = scale * reference_images(2, *SIZE, seed=9)
        y = mixed.predict(x, verbose=0)
        assert y.dtype == np.float32  # the classifier's activation stays float32
        assert relative_error(y, full.predict(x, verbose=0)) < TOLERANCE[dtype]
        mixed_gradients, full_gradients = gradients(mixed, x), gradients(full, x)
        assert all(np.isfinite(g).all() for g in mixed_gradients)
        flat = [np.concatenate([g.ravel() for g in each]) for each in (mixed_gradients, full_gradients)]
        assert relative_error(*flat) < 3 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.slow
def test_outputs_of_a_published_model_are_close_to_float32(dtype):
    models = [
        keras_t2t.T2TViT7(weights=None, include_preprocessing=False, classifier_activation=None, dtype=d)
        for d in (dtype, "float32")
    ]
    parameters = seeded_parameters(keras_t2t.config_of(models[0]), (224, 224))
    for model in models:
        keras_t2t.load_checkpoint(model, parameters)
    x = 100 * reference_images(1, 224, 224, seed=2)
    mixed, full = (model.predict(x, verbose=0) for model in models)
    assert relative_error(mixed, full) < 2 * TOLERANCE[dtype]
