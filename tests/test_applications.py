"""The constructors follow the conventions of keras.applications: signatures, shapes, values and error messages."""

import inspect

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.variants import VARIANTS
from tests.conftest import CONSTRUCTORS, SMALL_CONFIGS, outputs_of, relative_error, seeded_parameters, variant_model
from tests.reference_parameters import reference_images

PARAMETERS = {
    "t2t_vit_7": 4_310_222,
    "t2t_vit_10": 5_889_230,
    "t2t_vit_12": 6_941_902,
    "t2t_vit_14": 21_545_550,
    "t2t_vit_19": 39_177_422,
    "t2t_vit_24": 64_105_934,
    "t2t_vit_t_14": 21_541_070,
    # A token transformer lacks the 32 x 64 random features and the bias of 192 of a token performer. A model has two of them.
    "t2t_vit_t_19": 39_177_422 - 2 * (32 * 64 + 192),
    "t2t_vit_t_24": 64_105_934 - 2 * (32 * 64 + 192),
    "t2t_vit_14_resnext": 21_545_550,
    "t2t_vit_14_wide": 25_156_302,
    "t2t_vit_14_se": 21_803_598,
    "t2t_vit_16_ghost": 16_253_262,
    "t2t_vit_dense": 23_647_062,
    "vit_small_16": 22_050_664,
    "t2t_vit_tiny_32": 892_126,
}
CONFIG = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])


def small(**kwargs):
    return keras_t2t.T2TViT(CONFIG, **{"classes": 7, **kwargs})


def test_every_variant_has_a_constructor():
    assert set(VARIANTS) == set(PARAMETERS) == set(CONSTRUCTORS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_counts_and_configurations(variant):
    model = variant_model(variant)
    assert keras_t2t.config_of(model) == VARIANTS[variant].config
    assert model.count_params() == PARAMETERS[variant]
    assert model.name == variant
    assert model.output_shape == (None, 1000)


@pytest.mark.parametrize("variant", VARIANTS)
def test_signature_matches_keras_applications(variant):
    expected = list(inspect.signature(keras.applications.ConvNeXtTiny).parameters)
    parameters = inspect.signature(CONSTRUCTORS[variant]).parameters
    positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == expected
    general = inspect.signature(keras_t2t.T2TViT).parameters
    assert [name for name, p in general.items() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["config", *expected]
    assert "Args:" in inspect.getdoc(CONSTRUCTORS[variant])


def test_top_applies_head_and_softmax_to_the_class_token():
    size = (31, 23)
    parameters = seeded_parameters(CONFIG, size, classes=7)
    x = reference_images(2, *size, seed=3)
    common = {"input_shape": (*size, 3), "include_preprocessing": False}
    models = [
        small(**common),
        small(**common, classifier_activation=None),
        small(**common, include_top=False, pooling="token"),
    ]
    for model in models:
        keras_t2t.load_checkpoint(model, parameters)
    probabilities, logits, features = (outputs_of(model, x) for model in models)
    exponentials = np.exp(logits)
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(features @ parameters["head.weight"].T + parameters["head.bias"], logits, rtol=1e-4, atol=1e-5)


def test_pooling_is_the_mean_or_maximum_of_the_feature_map():
    size = (31, 23)
    x = reference_images(2, *size, seed=3)
    models = {p: small(include_top=False, pooling=p, input_shape=(*size, 3)) for p in (None, "avg", "max")}
    for model in models.values():
        model.set_weights(models[None].get_weights())
    grid = models[None].predict(x, verbose=0)
    assert grid.shape == (2, 4, 2, 18) == (2, *models[None].output_shape[1:])
    np.testing.assert_allclose(models["avg"].predict(x, verbose=0), grid.mean((1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(models["max"].predict(x, verbose=0), grid.max((1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pooling", [None, "token"])
def test_a_model_without_top_takes_any_image_size(pooling):
    any_size = small(include_top=False, pooling=pooling)
    assert any_size.input_shape == (None, None, None, 3)
    assert any_size.output_shape == ((None, None, None, 18) if pooling is None else (None, 18))
    parameters = seeded_parameters(CONFIG, (224, 224), classes=7)
    keras_t2t.load_checkpoint(any_size, parameters)
    for size in [(224, 224), (97, 61), (31, 46)]:
        fixed = small(include_top=False, pooling=pooling, input_shape=(*size, 3))
        keras_t2t.load_checkpoint(fixed, parameters)
        x = reference_images(2, *size, seed=7)
        assert relative_error(outputs_of(any_size, x), outputs_of(fixed, x)) < 1e-5


def test_any_image_size_keeps_the_position_table_of_a_keras_file(tmp_path):
    """A table for images that are not square, with a number of tokens that is a square."""
    trained = small(input_shape=(56, 20, 3), include_top=False, pooling="token")
    assert trained.get_layer("position_embedding").grid_size == (8, 2)
    trained.set_weights(
        [weight + 0.1 * np.sin(np.arange(weight.size)).reshape(weight.shape) for weight in trained.get_weights()]
    )
    trained.save(tmp_path / "trained.keras")
    any_size = small(include_top=False, pooling="token", weights=tmp_path / "trained.keras")
    assert any_size.input_shape == (None, None, None, 3)
    x = reference_images(2, 56, 20, seed=3)
    np.testing.assert_array_equal(outputs_of(any_size, x), outputs_of(trained, x))


def test_preprocessing_is_imagenet_normalization():
    images = np.random.default_rng(0).integers(0, 256, (2, 31, 31, 3), dtype="uint8")
    inside = small(input_shape=(31, 31, 3))
    outside = small(input_shape=(31, 31, 3), include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    normalized = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = keras_t2t.normalize_images(images, keras_t2t.preprocessing_of(outside))
    np.testing.assert_allclose(found, normalized, rtol=1e-4, atol=1e-5)
    expected = outputs_of(outside, normalized)
    for x in (images, images.astype("float32")):
        np.testing.assert_allclose(outputs_of(inside, x), expected, rtol=1e-4)


def test_other_numbers_of_channels_are_scaled_to_minus_one_to_one():
    model = small(input_shape=(31, 31, 1))
    layer = model.get_layer("normalization")
    np.testing.assert_allclose(layer(np.array([[[[0.0], [127.5], [255.0]]]]))[0, 0, :, 0], [-1, 0, 1], atol=1e-6)
    assert small(input_shape=(31, 31, 5)).input_shape == (None, 31, 31, 5)


def test_input_tensor_keeps_the_layers_before_it():
    inputs = keras.Input((31, 23, 3))
    model = small(input_tensor=keras.layers.Rescaling(2.0)(inputs), include_preprocessing=False)
    plain = small(input_shape=(31, 23, 3), include_preprocessing=False)
    plain.set_weights(model.get_weights())
    x = reference_images(2, 31, 23, seed=1)
    np.testing.assert_allclose(outputs_of(model, x), outputs_of(plain, 2 * x), rtol=1e-5)
    assert model.inputs[0] is inputs


def test_classes_and_activation():
    model = small(classes=np.int64(3), classifier_activation="sigmoid", input_shape=(31, 31, 3))
    y = model.predict(np.zeros((1, 31, 31, 3)), verbose=0)
    assert y.shape == (1, 3)
    assert abs(y.sum() - 1.5) < 0.2  # the sum of three sigmoids of logits near zero


def test_weights_can_be_a_file(tmp_path):
    path = str(tmp_path / "model.weights.h5")
    first = small(input_shape=(31, 31, 3))
    first.save_weights(path)
    second = small(input_shape=(31, 31, 3), weights=path)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_decode_predictions_returns_the_top_classes():
    preds = np.zeros((2, 1000))
    preds[0, [1, 207]] = 0.3, 0.7
    preds[1, 999] = 1.0
    decoded = keras_t2t.decode_predictions(preds, top=2)
    assert decoded[0] == [("n02099601", "golden_retriever", 0.7), ("n01443537", "goldfish", 0.3)]
    assert decoded[1][0] == ("n15075141", "toilet_tissue", 1.0)
    assert len(decoded[1]) == 2
    with pytest.raises(
        ValueError,
        match=r"predictions of shape \(samples, 1000\); received: \(1000,\)\. For other classes, use `keras_t2t\.pred",
    ):
        keras_t2t.decode_predictions(preds[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "nope/model.pth"}, r"There is no file nope/model\.pth\. The `weights` argument should be either `None`"),
        (
            {"weights": "imagenet21k"},
            r"either `None` .*, or the path .* Received: weights=imagenet21k",
        ),
        (
            {"weights": "imagenet", "classes": 10},
            r"`classes` should be 1000\. Received: classes=10\. .*keras_t2t\.replace_head\(model, classes\).*pooling='token'",
        ),
        ({"weights": "imagenet", "input_shape": (384, 384, 3)}, r"`input_shape` should be \(224, 224, 3\)"),
        ({"weights": "imagenet", "include_top": False, "input_shape": (64, 64, 1)}, "should have 3 channels"),
        ({"weights": "imagenet", "classifier_activation": "relu"}, "should be `None` or 'softmax'. Received: .*relu"),
        ({"input_shape": (224, 224)}, r"tuple \(height, width, channels\)\. Received: input_shape=\(224, 224\)"),
        ({"input_shape": 224}, r"tuple \(height, width, channels\)\. Received: input_shape=224"),
        ({"input_shape": (224, 224, 0)}, r"tuple \(height, width, channels\)\. Received: input_shape=\(224, 224, 0\)"),
        ({"weights": ["x"]}, r"path to the weights file .* Received: weights=\['x'\]"),
        ({"classes": True}, "positive integer. Received: classes=True"),
        ({"input_shape": (None, 224, 3)}, r"`input_shape` should be static. .* Received: input_shape=\(None, 224, 3\)"),
        ({"input_shape": (64, 64, None), "include_top": False}, "number of channels should be known"),
        ({"input_shape": (224, 2, 3)}, r"large enough for one token .* received: height=224, width=2"),
        ({"pooling": "mean", "include_top": False}, r"one of \(None, 'avg', 'max', 'token'\)\. Received: pooling='mean'"),
        ({"classes": 0}, "`classes` should be a positive integer. Received: classes=0"),
        ({"input_tensor": np.zeros((1, 32, 32, 3))}, "`input_tensor` should be a Keras tensor"),
        ({"input_tensor": keras.KerasTensor((None, 64, 48, 3)), "input_shape": (48, 64, 3)}, "shape of `input_tensor`"),
    ],
)
def test_invalid_and_contradictory_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        keras_t2t.T2TViT7(**{"weights": None, **arguments})


def test_channels_first_is_not_supported():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match=r"received: image_data_format='channels_first'\. Call keras\.config"):
            keras_t2t.T2TViT7(weights=None)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_a_variant_can_be_given_by_name():
    assert keras_t2t.config_of(keras_t2t.T2TViT("t2t_vit_10", include_top=False)) == VARIANTS["t2t_vit_10"].config
    for unknown in ("t2t_vit_15", None, 14):
        with pytest.raises(ValueError, match=rf"expected one of t2t_vit_7, .*, t2t_vit_tiny_32; received: {unknown!r}"):
            keras_t2t.T2TViT(unknown)
