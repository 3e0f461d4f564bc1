"""Segmenters: the head against NumPy, sizes, saving, and training."""

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.models import spec_of
from tests.conftest import PYRAMID_CONFIGS, mostly_slow, outputs_of

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
SIZE = (31, 46)
X = np.random.default_rng(5).uniform(0, 255, (2, *SIZE, 3)).astype("float32")


def build(kind="performer", classes=5, randomize=True, **kwargs):
    """Returns a segmenter in which the biases, the scales of norms and the statistics are random as well."""
    config = keras_t2t.T2TConfig(**PYRAMID_CONFIGS[kind])
    keras.utils.set_random_seed(3)
    model = keras_t2t.segmenter(keras_t2t.T2TViT(config, input_shape=(*SIZE, 3)), classes, width=12, **kwargs)
    rng = np.random.default_rng(1)
    for layer in model.layers if randomize else ():
        if layer.name in ("head", "mix", "mix_norm") or layer.name.endswith("_projection"):
            layer.set_weights([rng.uniform(0.2, 1.2, weight.shape) * rng.choice([-1, 1]) for weight in layer.get_weights()])
    model.get_layer("mix_norm").moving_variance.assign(rng.uniform(0.5, 2, 12))
    return model


def resize(x, size):
    """Bilinear interpolation `(B, h, w, D)` to `size` with half-pixel centers and clamped edges, one axis at a time."""
    for axis, new in zip((1, 2), size, strict=True):
        old = x.shape[axis]
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(position).astype(int)
        high, weight = np.minimum(low + 1, old - 1), position - low
        weight = weight.reshape([-1 if i == axis else 1 for i in range(4)])
        x = np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight
    return x


def numpy_scores(model, pyramid, images):
    """Computes the head of a segmenter from the maps of a pyramid."""

    def dense(x, name):
        layer = model.get_layer(name)
        return x @ np.asarray(layer.kernel) + (np.asarray(layer.bias) if layer.use_bias else 0)

    maps = {name: np.asarray(values, "float64") for name, values in outputs_of(pyramid, images).items()}
    finest = next(iter(maps.values())).shape[1:3]
    x = np.concatenate([resize(dense(values, f"{level}_projection"), finest) for level, values in maps.items()], -1)
    norm = model.get_layer("mix_norm")
    gamma, beta, mean, variance = map(np.asarray, (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    x = np.maximum((dense(x, "mix") - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta, 0)
    logits = resize(dense(x, "head"), images.shape[1:3])
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize("kind", mostly_slow(["performer", "transformer", "patches", "dense"], "performer"))
def test_scores_match_numpy(kind):
    model = build(kind)
    backbone = keras_t2t.T2TViT(keras_t2t.T2TConfig(**PYRAMID_CONFIGS[kind]), input_shape=(*SIZE, 3))
    for layer in backbone.layers:
        if layer.weights and layer.name not in ("head", "predictions"):
            layer.set_weights(model.get_layer(layer.name).get_weights())
    pyramid = keras_t2t.feature_pyramid(backbone)
    for images in (X, np.random.default_rng(6).uniform(0, 255, (1, 54, 37, 3))):
        scores = outputs_of(model, images)
        assert scores.shape == (*images.shape[:3], 5)
        np.testing.assert_allclose(scores, numpy_scores(model, pyramid, images), rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not ON_TENSORFLOW, reason="files do not depend on the backend")
def test_saving_keeps_every_bit_and_the_labels(tmp_path):
    labels = ("road", "sky", "tree")
    model = build(classes=labels, image_size=SIZE)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs_of(loaded, X), outputs_of(model, X))
    assert keras_t2t.labels_of(loaded) == labels
    assert spec_of(loaded).output == "probabilities"
    assert keras_t2t.preprocessing_of(loaded).image_size == SIZE


@pytest.mark.slow
def test_training_lowers_the_loss_and_leaves_the_model_alone():
    backbone = keras_t2t.T2TViT(keras_t2t.T2TConfig(**PYRAMID_CONFIGS["convolution"]), input_shape=(*SIZE, 3))
    before = backbone.get_weights()
    model = keras_t2t.segmenter(backbone, 3, image_size=SIZE)
    masks = np.where(X.mean(-1) > 128, 1, 0)
    masks[:, :5] = 255
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(ignore_class=255))
    losses = model.fit(X, masks, epochs=3, batch_size=2, verbose=0).history["loss"]
    assert losses[2] < losses[1] < losses[0] and np.isfinite(losses).all()
    for old, weight in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, weight)


def test_mixed_precision_returns_float32_scores():
    config = keras_t2t.T2TConfig(**PYRAMID_CONFIGS["performer"])
    model = keras_t2t.segmenter(keras_t2t.T2TViT(config, input_shape=(*SIZE, 3), dtype="mixed_bfloat16"), 4)
    assert model.output.dtype == "float32"
    assert model.get_layer("head").compute_dtype == "bfloat16"
    assert np.asarray(model(X)).sum(-1) == pytest.approx(1, abs=1e-5)


def test_segmenters_are_not_classifiers():
    model = build(image_size=SIZE)
    with pytest.raises(ValueError, match="Expected a classifier; this model returns scores for every pixel"):
        keras_t2t.predict_images(model, ["examples/images/frog.jpg"])
    with pytest.raises(ValueError, match="Use evaluate_segmenter"):
        keras_t2t.training.evaluate(model, keras_t2t.data.from_arrays(X, [0, 4]))
    for size in (64, (64, 0), (64, None, 3)):
        with pytest.raises(ValueError, match=r"image_size: expected \(height, width\) in pixels; received: image_size="):
            keras_t2t.segmenter(model, 3, image_size=size)
    with pytest.raises(ValueError, match="Expected a classifier, or a model that returns features"):
        keras_t2t.replace_head(model, 3)


def test_invalid_arguments_raise():
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**PYRAMID_CONFIGS["patches"]), input_shape=(*SIZE, 3))
    for classes in (0, 2.0, "road", ["road", "road"], []):
        with pytest.raises(ValueError, match="`classes` should be a positive integer or a list of distinct class names"):
            keras_t2t.segmenter(model, classes)
    for arguments in ({"width": 0}, {"drop_rate": 1.0}):
        with pytest.raises(ValueError, match=r"Expected a positive integer as width and a rate in \[0, 1\) as drop_rate"):
            keras_t2t.segmenter(model, 3, **arguments)
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        keras_t2t.segmenter(keras.Sequential([keras.Input((31, 46, 3))]), 3)
    without_norm = keras.Model(model.input, model.get_layer("block1").output)
    with pytest.raises(ValueError, match=r"encoder blocks and a FastLayerNorm after the last one; 'functional.*' ends early"):
        keras_t2t.segmenter(without_norm, 3)


def test_a_segmenter_becomes_a_pyramid_or_another_segmenter():
    model = build()
    pyramid = keras_t2t.feature_pyramid(model)
    keras.utils.set_random_seed(3)  # gives the same weights as in `build`
    backbone = keras_t2t.T2TViT(keras_t2t.config_of(model), input_shape=(*SIZE, 3))
    for name, values in keras_t2t.feature_pyramid(backbone).predict(X, verbose=0).items():
        np.testing.assert_allclose(pyramid.predict(X, verbose=0)[name], values, rtol=1e-4, atol=1e-5)
    assert keras_t2t.segmenter(model, 9, image_size=SIZE).output_shape == (None, *SIZE, 9)
