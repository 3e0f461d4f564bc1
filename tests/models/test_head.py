"""New heads on a shared backbone, and the class names that a model carries."""

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.inference import probabilities
from keras_t2t.models import spec_of
from keras_t2t.models.graph import find_head
from tests.conftest import SMALL_CONFIGS, outputs_of

CONFIG = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
X = np.random.default_rng(5).uniform(0, 255, (2, 31, 23, 3))


def build(**kwargs):
    return keras_t2t.T2TViT(CONFIG, input_shape=(31, 23, 3), **{"classes": 7, **kwargs})


@pytest.mark.parametrize("kwargs", [{}, *({"include_top": False, "pooling": p} for p in ("token", "avg", "max"))])
def test_a_new_head_on_the_same_backbone(kwargs):
    model = build(**kwargs)
    new_model = keras_t2t.replace_head(model, 3, classifier_activation=None)
    features = outputs_of(model, X) if kwargs else None
    if features is None:
        features = outputs_of(keras.Model(model.inputs, model.get_layer("head").input), X)
    head = new_model.get_layer("head")
    assert head is not next((layer for layer in model.layers if layer.name == "head"), None)
    expected = features @ np.asarray(head.kernel) + np.asarray(head.bias)
    np.testing.assert_allclose(outputs_of(new_model, X), expected, rtol=1e-4, atol=1e-5)
    assert new_model.get_layer("block0") is model.get_layer("block0")
    assert new_model.name == model.name
    assert keras_t2t.config_of(new_model) == CONFIG


def test_training_the_new_model_trains_the_shared_backbone():
    model = build()
    assert not np.any(model.get_layer("block0").norm1.beta)
    new_model = keras_t2t.replace_head(model, 2)
    new_model.compile("sgd", "sparse_categorical_crossentropy")
    new_model.fit(X, np.array([0, 1]), verbose=0)
    assert np.all(model.get_layer("block0").norm1.beta)


def test_the_head_of_a_model_that_ends_in_a_cast():
    model = build()
    rounded = find_head(keras.Model(model.input, keras.ops.cast(model.output, "float16")))
    assert rounded.dense is model.get_layer("head") and rounded.activations == ("softmax",)
    assert find_head(keras.Model(model.input, keras.ops.cast(model.output, "int32"))) is None


def test_labels_are_saved_with_the_model(tmp_path):
    labels = ("daisy", "rose", "tulip")
    model = keras_t2t.replace_head(build(dtype="mixed_bfloat16"), labels)
    assert model.output.dtype == "float32"
    assert model.get_layer("head").dtype_policy.name == "mixed_bfloat16"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert keras_t2t.labels_of(loaded) == keras_t2t.labels_of(model) == labels
    assert keras_t2t.labels_of(keras.models.clone_model(model)) == labels
    np.testing.assert_array_equal(outputs_of(loaded, X), outputs_of(model, X))
    assert keras_t2t.labels_of(build()) is None
    assert keras_t2t.labels_of(keras_t2t.replace_head(model, 3)) is None


@pytest.mark.parametrize("classes", [0, 1.5, True, [], ["a", "a"], ["a", 2], "ab", None])
def test_invalid_classes(classes):
    with pytest.raises(ValueError, match=r"positive integer or a list of distinct class names. Received: classes="):
        keras_t2t.replace_head(build(), classes)


def test_a_feature_map_is_refused():
    with pytest.raises(ValueError, match=r"pooling='token'`; received a model with the output shape \(None, 4, 2, 18\)"):
        keras_t2t.replace_head(build(include_top=False), 3)


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        keras_t2t.replace_head(keras.Sequential([keras.layers.Dense(3)]), 3)


def test_layers_after_the_classifier_are_refused():
    """A new head on the old scores would train, but it would be wrong."""
    classifier, images = build(), keras.Input((31, 23, 3))
    scaled = keras.layers.Rescaling(2.0, name="calibration")
    average = keras.layers.Average(name="ensemble")([classifier(images), build(name="other")(images)])
    for model, last in (
        (keras.Model(classifier.input, scaled(classifier.output)), "calibration"),
        (keras.Sequential([images, classifier, scaled]), "calibration"),
        (keras.Model(images, average), "ensemble"),
    ):
        with pytest.raises(ValueError, match=f"only activations after its classifier; received one that ends with '{last}'"):
            keras_t2t.replace_head(model, 3)


def own_heads():
    backbone = build(include_top=False, pooling="token")
    images = keras.Input((31, 23, 3))
    dense = keras.layers.Dense(10, name="norm2")
    return {
        "functional": keras.Model(backbone.input, keras.layers.Dense(10, activation="softmax")(backbone.output)),
        "activation layer": keras.Model(backbone.input, keras.layers.Softmax()(dense(backbone.output))),
        "function": keras.Model(backbone.input, keras.ops.sigmoid(keras.layers.Dense(10)(backbone.output))),
        "nested": keras.Model(images, keras.layers.Dense(10, name="head")(keras.layers.Dropout(0.2)(backbone(images)))),
        "sequential": keras.Sequential([keras.Input((31, 23, 3)), backbone, keras.layers.Dense(10)]),
        "nested classifier": keras.Sequential([keras.Input((31, 23, 3)), build(), keras.layers.Activation("linear")]),
    }


@pytest.mark.parametrize("kind", own_heads())
def test_heads_are_found_in_the_graph_and_not_by_name(kind):
    model = own_heads()[kind]
    replaced = keras_t2t.replace_head(model, ["a", "b", "c"], None)
    kernel, bias = np.random.default_rng(2).normal(size=(18, 3)), np.arange(3.0)
    find_head(replaced).dense.set_weights([kernel, bias])
    features = outputs_of(backbone_of(model), X)
    np.testing.assert_allclose(outputs_of(replaced, X), features @ kernel + bias, rtol=1e-4, atol=1e-4)
    assert keras_t2t.labels_of(replaced) == ("a", "b", "c")
    expected = {"functional": "probabilities", "activation layer": "probabilities", "function": "scores"}
    expected["nested classifier"] = "probabilities"
    assert spec_of(model).output == expected.get(kind, "logits")
    assert spec_of(replaced).output == "logits"


def backbone_of(model):
    """Returns a model from the images to the class token after the last norm, with the layers of `model`."""
    inner = next((layer for layer in model.layers if isinstance(layer, keras.Model)), model)
    return keras.Model(inner.input, inner.get_layer("norm").output[:, 0])


@pytest.mark.filterwarnings("error:The structure of")
def test_the_new_model_keeps_the_structure_of_the_inputs():
    assert outputs_of(keras_t2t.replace_head(build(), 3), X).shape == (2, 3)


def test_labels_must_match_the_number_of_classes():
    with pytest.raises(ValueError, match="Expected one label for each of 3 classes; received: 2 labels"):
        keras_t2t.layers.Predictions(labels=["a", "b"]).build((None, 3))


def on_top(nested):
    """A dense layer on top of a classifier with labels, which is a part of the model or a layer of it."""
    classifier = keras_t2t.replace_head(build(), ["a", "b", "c", "d"])
    images = keras.Input((31, 23, 3))
    inputs, outputs = (images, classifier(images)) if nested else (classifier.input, classifier.output)
    return keras.Model(inputs, keras.layers.Dense(3, name="mine")(outputs)), classifier


@pytest.mark.parametrize("nested", [True, False])
def test_labels_are_those_of_the_head(nested):
    model, classifier = on_top(nested)
    assert keras_t2t.labels_of(model) is None and spec_of(model).labels is None
    assert keras_t2t.labels_of(keras_t2t.optimize_for_inference(model)) is None
    replaced = keras_t2t.replace_head(model, ["x", "y"])
    assert keras_t2t.labels_of(replaced) == ("x", "y")
    find_head(replaced).dense.set_weights([np.eye(4)[:, :2], np.zeros(2)])
    scores = outputs_of(classifier, X)[:, :2]
    np.testing.assert_allclose(outputs_of(replaced, X), np.exp(scores) / np.exp(scores).sum(1, keepdims=True), rtol=1e-5)
    assert keras_t2t.labels_of(classifier) == ("a", "b", "c", "d")


@pytest.mark.parametrize("nested", [True, False])
def test_labels_of_a_head_inside_another_model(nested):
    classifier = keras_t2t.replace_head(build(), ["a", "b", "c"], None)
    images = keras.Input((31, 23, 3))
    inputs, outputs = (images, classifier(images)) if nested else (classifier.input, classifier.output)
    model = keras.Model(inputs, keras.layers.Softmax()(outputs))
    assert keras_t2t.labels_of(model) == ("a", "b", "c") and spec_of(model).output == "probabilities"


@pytest.mark.parametrize("as_function", [True, False])
def test_log_probabilities_are_logits(as_function):
    backbone = build(include_top=False, pooling="token")
    logits = keras.layers.Dense(3)(backbone.output)
    log_softmax = keras.ops.log_softmax if as_function else keras.layers.Activation("log_softmax")
    model = keras.Model(backbone.input, log_softmax(logits))
    spec = spec_of(model)
    assert find_head(model).activations == ("log_softmax",) and spec.output == "logits"
    received = probabilities(outputs_of(model, X), spec)
    np.testing.assert_allclose(received, np.exp(outputs_of(model, X)), rtol=1e-5)
    np.testing.assert_allclose(received.sum(1), 1)


def test_a_new_head_has_the_dtype_of_the_features():
    backbone = build(include_top=False, pooling="token", dtype="mixed_bfloat16")
    nested = keras.Sequential([keras.Input((31, 23, 3)), backbone])
    for model in (backbone, nested):
        assert find_head(keras_t2t.replace_head(model, 3)).dense.dtype_policy.name == "mixed_bfloat16"


def test_layers_before_a_nested_model_keep_their_names():
    """The first `Normalization` is called like the one inside our models, and arguments of the call are kept."""
    inner = build(include_top=False, pooling="token")
    inputs = keras.Input((31, 23, 3))
    mean, variance = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    normalization = keras.layers.Normalization(mean=mean, variance=variance, name="normalization")
    features = inner(normalization(inputs), training=False)
    model = keras_t2t.replace_head(keras.Model(inputs, keras.layers.Dense(4)(features)), 3, None)
    dense = find_head(model).dense
    expected = inner.predict((X - mean) / np.sqrt(variance), verbose=0) @ np.array(dense.kernel) + np.array(dense.bias)
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-5)
