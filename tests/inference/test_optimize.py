"""The optimized model against numpy in float64, against the reference outputs, and against the original model."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.inference import folded
from keras_t2t.inference.folded import FoldedLayer, attend, standardize
from keras_t2t.inference.tokens import performer, window_variance
from keras_t2t.models.graph import layers_of
from keras_t2t.variants import VARIANTS
from tests.conftest import CONSTRUCTORS, SMALL_CONFIGS, mostly_slow, outputs_of, relative_error, seeded_parameters
from tests.numpy_t2t import NumpyT2T
from tests.reference_parameters import reference_images

TOLERANCE = 1e-5


def small_model(kind, size=(31, 23), channels=3, **kwargs):
    """Returns a small model with seeded weights, including those of the norms."""
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[kind])
    model = keras_t2t.T2TViT(config, input_shape=(*size, channels), **kwargs)
    parameters = seeded_parameters(config, size, channels, kwargs.get("classes", 7))
    keras_t2t.load_checkpoint(model, parameters, skip_head=not kwargs.get("include_top", True))
    return model


def difficult_images(*shape):
    """Returns three images: noise, almost uniform white, and half white."""
    rng = np.random.default_rng(3)
    images = rng.uniform(0, 255, (3, *shape)).astype("float32")
    images[1] = np.round(254 + rng.uniform(-1, 1, shape))
    images[2, : shape[0] // 2] = 255
    return images


def test_every_configuration_agrees_with_numpy(small_config):
    size, channels, classes = (31, 23), 2, 7
    parameters = seeded_parameters(small_config, size, channels, classes)
    images = reference_images(3, *size, seed=5)[..., :channels]
    model = keras_t2t.T2TViT(
        small_config,
        classes=classes,
        classifier_activation=None,
        include_preprocessing=False,
        input_shape=(*size, channels),
    )
    keras_t2t.load_checkpoint(model, parameters)
    expected = np.stack([NumpyT2T(small_config, parameters).logits(image) for image in images])
    assert relative_error(outputs_of(keras_t2t.optimize_for_inference(model), images), expected) < TOLERANCE


@pytest.mark.parametrize("kind", mostly_slow(SMALL_CONFIGS, "performer", "dense"))
@pytest.mark.parametrize("arguments", [{"include_top": False}, {"classes": 7}])
def test_outputs_agree_with_the_model_for_difficult_images(kind, arguments):
    model = small_model(kind, **arguments)
    images = difficult_images(31, 23, 3)
    expected, received = (outputs_of(m, images) for m in (model, keras_t2t.optimize_for_inference(model)))
    for i in range(len(images)):
        assert relative_error(received[i], expected[i]) < TOLERANCE


def test_reference_logits(reference):
    if reference["variant"] not in ("t2t_vit_7", "t2t_vit_t_14"):
        pytest.skip("one model for each token attention is enough")
    model = CONSTRUCTORS[reference["variant"]](weights=None, include_preprocessing=False, classifier_activation=None)
    keras_t2t.load_checkpoint(model, reference["parameters"])
    optimized = keras_t2t.optimize_for_inference(model)
    assert relative_error(outputs_of(optimized, reference["images"]), reference["logits"]) < TOLERANCE


def test_image_size_can_stay_undefined():
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    model = keras_t2t.T2TViT(config, include_top=False)
    optimized = keras_t2t.optimize_for_inference(model)
    for size in ((31, 23), (40, 57)):
        images = difficult_images(*size, 3)
        assert relative_error(optimized(images), model(images, training=False)) < TOLERANCE


@pytest.mark.slow
def test_every_variant_is_folded():
    for variant in VARIANTS.values():
        config = dataclasses.replace(variant.config, depth=(1, 1) if variant.config.block == "dense" else 1)
        model = keras_t2t.T2TViT(config, classes=3, input_shape=(64, 48, 3))
        kinds = {type(layer).__name__ for layer in keras_t2t.optimize_for_inference(model).layers}
        assert {"InferenceTokensToToken", "InferenceBlock"} <= kinds
        assert not kinds & {"TokensToToken", "EncoderBlock", "GhostBlock", "DenseBlock", "SqueezeExciteBlock", "Dropout"}


@pytest.mark.parametrize("kind", ["ghost", "dense"])
def test_saved_and_loaded(kind, tmp_path):
    optimized = keras_t2t.optimize_for_inference(small_model(kind, classes=7))
    optimized.save(tmp_path / "fast.keras")
    loaded = keras.saving.load_model(tmp_path / "fast.keras")
    images = difficult_images(31, 23, 3)
    np.testing.assert_array_equal(outputs_of(loaded, images), outputs_of(optimized, images))
    trained = {variable.path.split("/")[0] for variable in loaded.trainable_variables} - {"transition0", "transition1"}
    assert trained == {"class_token", "norm", "head"}


def test_weights_are_not_shared_with_the_model():
    model = small_model("performer", classes=7)
    images = difficult_images(31, 23, 3)
    optimized = keras_t2t.optimize_for_inference(model)
    before = outputs_of(optimized, images)
    model.set_weights([2 * weight for weight in model.get_weights()])
    np.testing.assert_array_equal(outputs_of(optimized, images), before)


def test_custom_head_is_kept():
    backbone = small_model("transformer", include_top=False, pooling="token")
    hidden = keras.layers.Dense(5, activation="tanh", name="mine")(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dropout(0.5)(hidden))
    images = difficult_images(31, 23, 3)
    expected, received = (outputs_of(m, images) for m in (model, keras_t2t.optimize_for_inference(model)))
    assert relative_error(received, expected) < TOLERANCE


def test_layers_in_16_bits_become_float32():
    exact = small_model("performer", classes=7)
    half = small_model("performer", classes=7, dtype="mixed_bfloat16")
    images = difficult_images(31, 23, 3)
    optimized = keras_t2t.optimize_for_inference(half)
    folded = [layer for layer in optimized.layers if isinstance(layer, FoldedLayer)]
    assert {layer.compute_dtype for layer in folded} == {"float32"}
    assert optimized.output.dtype == half.output.dtype
    np.testing.assert_allclose(outputs_of(optimized, images), outputs_of(exact, images), atol=0.02)


@pytest.mark.parametrize("kind", mostly_slow(SMALL_CONFIGS, "performer"))
def test_bfloat16(kind):
    """For the original model, and for one that is already optimized."""
    model = small_model(kind, classes=7, classifier_activation=None)
    images = difficult_images(31, 23, 3)
    expected = outputs_of(model, images)
    for source in (model, keras_t2t.optimize_for_inference(model)):
        optimized = keras_t2t.optimize_for_inference(source, "bfloat16")
        folded = [weight for layer in optimized.layers if isinstance(layer, FoldedLayer) for weight in layer.weights]
        in_float32 = {weight.name for weight in folded if weight.dtype != "bfloat16"}
        features = (
            set() if kind in ("transformer", "convolution", "patches") else {"split1_random_features", "split2_random_features"}
        )
        assert in_float32 == {"split1_kernel"} | features
        assert optimized.output.dtype == "float32"
        received = outputs_of(optimized, images)
        assert 1e-5 < relative_error(received, expected) < (0.06 if kind == "dense" else 0.03)  # as in mixed precision
    back = keras_t2t.optimize_for_inference(optimized)
    assert {layer.compute_dtype for layer in back.layers if isinstance(layer, FoldedLayer)} == {"float32"}
    assert relative_error(outputs_of(back, images), expected) < (0.06 if kind == "dense" else 0.03)


@pytest.mark.parametrize("kind", ["performer", "transformer", "convolution"])
def test_bfloat16_keeps_areas_with_little_contrast(kind):
    """These pixels differ by less than bfloat16 can represent at their brightness."""
    images = 2.2 + np.random.default_rng(0).uniform(-0.002, 0.002, (3, 31, 23, 3)).astype("float32")
    model = small_model(kind, classes=7)
    exact, fast = (
        keras_t2t.optimize_for_inference(model, dtype).get_layer("tokens_to_token")(images) for dtype in (None, "bfloat16")
    )
    assert relative_error(keras.ops.cast(fast, "float32"), exact) < 0.02


def test_bfloat16_is_rounded_at_the_end_only():
    """Norms, softmax and the performer, against numpy in float64 for the same inputs. Bfloat16 has eight significant bits."""
    rng = np.random.default_rng(2)

    def rounded(x):
        return keras.ops.cast(keras.ops.convert_to_tensor(x.astype("float32")), "bfloat16")

    def exact(x):
        return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")).astype("float64")

    def check(received, expected, tolerance):
        assert keras.backend.standardize_dtype(received.dtype) == "bfloat16"
        np.testing.assert_allclose(exact(received), expected, rtol=tolerance, atol=tolerance * np.abs(expected).mean())

    x = rounded(100 + rng.normal(size=(5, 300)))
    expected = exact(x) - exact(x).mean(axis=-1, keepdims=True)
    check(standardize(x, 1e-5), expected / expected.std(axis=-1, keepdims=True), 2**-8)

    keys, values = (rounded(rng.normal(size=(3, 700, 8))) for _ in range(2))
    queries = keras.ops.zeros((3, 2, 8), "bfloat16")  # all weights are 1 / 700, so a running sum in bfloat16 would be far off
    check(attend(queries, keys, 0 * values + 1), np.ones((3, 2, 8)), 2**-7)

    random_features = rng.normal(size=(8, 5)).astype("float32")
    queries, keys = (rounded(rng.normal(size=(3, 70, 8))) for _ in range(2))
    values = rounded(rng.normal(size=(3, 70, 8)) + 3)
    q, k = (
        np.exp(exact(x) @ random_features - 0.5 * (exact(x) ** 2).sum(axis=-1, keepdims=True)) / 5**0.5 for x in (queries, keys)
    )
    weights = q @ np.swapaxes(k, 1, 2)
    expected = weights @ exact(values) / (weights.sum(axis=-1, keepdims=True) + 1e-8)
    check(performer(queries, keys, values, keras.ops.convert_to_tensor(random_features)), expected, 2**-8)


@pytest.mark.parametrize("heads", [(), (3,)])
@pytest.mark.parametrize("fused", [False, True])
def test_fused_attention_is_softmax_attention(heads, fused, monkeypatch):
    assert not any(map(folded.has_fused_attention, ("bfloat16", "float32", "float64")))  # not on a CPU
    monkeypatch.setattr(folded, "has_fused_attention", lambda dtype: fused)
    rng = np.random.default_rng(3)
    queries, keys, values = (rng.standard_normal((2, *heads, tokens, 5)) for tokens in (4, 7, 7))
    weights = np.exp(queries @ np.swapaxes(keys, -1, -2))
    expected = weights / weights.sum(-1, keepdims=True) @ values
    received = attend(*(keras.ops.convert_to_tensor(x.astype("float32")) for x in (queries, keys, values)))
    assert relative_error(keras.ops.convert_to_numpy(received), expected) < TOLERANCE


def test_rejects_other_dtypes():
    with pytest.raises(ValueError, match="Expected dtype to be None or 'bfloat16'; received: dtype='float16'"):
        keras_t2t.optimize_for_inference(small_model("performer", classes=7), "float16")


def test_graph_contains_neither_weights_nor_windows():
    """Every optimization pass copies the constants of a graph: nine times 86 MB for T2TViT14."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow has graphs")
    import tensorflow as tf

    optimized = keras_t2t.optimize_for_inference(small_model("performer", classes=7))
    function = tf.function(lambda images: optimized(images, training=False))
    operations = function.get_concrete_function(tf.TensorSpec((None, 31, 23, 3))).graph.get_operations()
    constants = sum(op.outputs[0].shape.num_elements() or 0 for op in operations if op.type == "Const")
    assert constants < optimized.count_params() / 4
    widths = {output.shape[-1] for op in operations for output in op.outputs if output.shape.rank}
    assert widths.isdisjoint({5 * 5 * 3, 3 * 3 * 10})  # widths of the windows of the first two soft splits


def test_window_variance_is_precise():
    rng = np.random.default_rng(0)
    x = (1000 + rng.normal(0, 0.1, (2, 9, 11, 3))).astype("float32")
    kernel, strides, padding = 5, 2, 0
    rows, columns = (9 - 5) // 2 + 1, (11 - 5) // 2 + 1
    windows = [
        [x[:, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5].astype("float64").reshape(2, -1).var(axis=1) for j in range(columns)]
        for i in range(rows)
    ]
    expected = np.moveaxis(np.array(windows), -1, 0)[..., None]
    received = keras.ops.convert_to_numpy(window_variance(keras.ops.convert_to_tensor(x), (kernel, strides, padding)))
    np.testing.assert_allclose(received, expected, rtol=1e-3)


def test_rejects_models_not_built_by_keras_t2t():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        keras_t2t.optimize_for_inference(model)


@pytest.mark.parametrize("sequential", [False, True])
def test_models_that_contain_ours(sequential):
    backbone = small_model("performer", include_top=False, pooling="token")
    layers = [keras.layers.Dropout(0.2), keras.layers.Dense(4, activation="softmax")]
    if sequential:
        model = keras.Sequential([keras.Input((31, 23, 3)), backbone, *layers])
    else:
        images = keras.Input((31, 23, 3))
        model = keras.Model(images, layers[1](layers[0](backbone(images))))
    optimized = keras_t2t.optimize_for_inference(model)
    kinds = {type(layer).__name__ for layer in layers_of(optimized)}
    assert {"InferenceTokensToToken", "InferenceBlock"} <= kinds and not kinds & {"TokensToToken", "EncoderBlock"}
    images = difficult_images(31, 23, 3)
    assert relative_error(outputs_of(optimized, images), outputs_of(model, images)) < TOLERANCE


def test_layers_with_weights_of_any_kind():
    """Layers that compute something from their weights, LoRA, and blocks that compute something else."""

    class Doubled(keras_t2t.layers.EncoderBlock):
        def residual_mlp(self, x, attention_output, training=None):
            return 2 * super().residual_mlp(x, attention_output, training)

    def clone(layer):
        return (Doubled if layer.name == "block1" else type(layer)).from_config(layer.get_config())

    model = keras.models.clone_model(small_model("performer", classes=7), clone_function=clone)
    model.get_layer("block0").attention.qkv.enable_lora(2)
    normalization = keras.layers.Normalization()
    normalization.adapt(difficult_images(31, 23, 3))
    inputs = keras.Input((31, 23, 3))
    whole = keras.Model(inputs, model(normalization(inputs)))
    for weight in whole.trainable_weights:
        weight.assign_add(0.1 * np.random.default_rng(5).standard_normal(weight.shape))
    images = np.random.default_rng(6).uniform(0, 255, (3, 31, 23, 3))
    optimized = keras_t2t.optimize_for_inference(whole)
    assert relative_error(optimized.predict(images, verbose=0), whole.predict(images, verbose=0)) < 1e-4
    assert isinstance(optimized.get_layer(model.name).get_layer("block1"), Doubled)


def test_wide_performers_do_not_overflow():
    """Queries and keys along the random features have products of features up to the exponential of the width."""
    width, rng = 192, np.random.default_rng(0)
    features = np.linalg.qr(rng.normal(size=(width, width)))[0][: width // 2] * width**0.5
    x = np.stack([features[:5], features[3:8]])
    values = rng.normal(size=x.shape)
    weights = np.exp(np.minimum(x @ features.T - (x**2).sum(-1, keepdims=True) / 2, 700))  # in float64
    expected = weights @ (weights.swapaxes(1, 2) @ values) / ((weights @ weights.swapaxes(1, 2)).sum(-1, keepdims=True) + 1e-8)
    queries, keys, values = (keras.ops.convert_to_tensor(array, "float32") for array in (x, x, values))
    received = performer(queries, keys, values, keras.ops.convert_to_tensor(features.T, "float32"))
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-5)
