"""A fresh head on a shared body, and the names of classes that models carry."""

import keras
import numpy as np
import pytest

import keras_t2t
from tests.conftest import SMALL_CONFIGS

CONFIG = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
X = np.random.default_rng(5).uniform(0, 255, (2, 31, 23, 3))


def build(**kwargs):
    return keras_t2t.T2TViT(CONFIG, input_shape=(31, 23, 3), **{"classes": 7, **kwargs})


@pytest.mark.parametrize("kwargs", [{}, *({"include_top": False, "pooling": p} for p in ("token", "avg", "max"))])
def test_a_fresh_head_on_the_same_body(kwargs):
    model = build(**kwargs)
    fresh = keras_t2t.replace_head(model, 3, classifier_activation=None)
    features = model.predict(X, verbose=0) if kwargs else None
    if features is None:
        features = keras.Model(model.inputs, model.get_layer("head").input).predict(X, verbose=0)
    head = fresh.get_layer("head")
    assert head is not next((layer for layer in model.layers if layer.name == "head"), None)
    expected = features @ np.asarray(head.kernel) + np.asarray(head.bias)
    np.testing.assert_allclose(fresh.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-5)
    assert fresh.get_layer("block0") is model.get_layer("block0")
    assert fresh.name == model.name
    assert keras_t2t.config_of(fresh) == CONFIG


def test_training_the_new_model_trains_the_body_of_the_old_one():
    model = build()
    before = np.array(model.get_layer("block0").norm1.gamma)
    fresh = keras_t2t.replace_head(model, 2)
    fresh.compile("sgd", "sparse_categorical_crossentropy")
    fresh.fit(X, np.array([0, 1]), verbose=0)
    assert not np.array_equal(before, model.get_layer("block0").norm1.gamma)


def test_labels_are_saved_with_the_model(tmp_path):
    labels = ("daisy", "rose", "tulip")
    model = keras_t2t.replace_head(build(dtype="mixed_bfloat16"), labels)
    assert model.output.dtype == "float32"
    assert model.get_layer("head").dtype_policy.name == "mixed_bfloat16"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert keras_t2t.labels_of(loaded) == keras_t2t.labels_of(model) == labels
    assert keras_t2t.labels_of(keras.models.clone_model(model)) == labels
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert keras_t2t.labels_of(build()) is None
    assert keras_t2t.labels_of(keras_t2t.replace_head(model, 3)) is None


@pytest.mark.parametrize("classes", [0, 1.5, True, [], ["a", "a"], ["a", 2], "ab", None])
def test_classes_are_a_count_or_names(classes):
    with pytest.raises(ValueError, match=r"positive integer or the distinct names of classes. Received: classes="):
        keras_t2t.replace_head(build(), classes)


def test_a_feature_map_cannot_be_classified():
    with pytest.raises(ValueError, match=r"pooling='token'`; received a model with the output shape \(None, 4, 2, 18\)"):
        keras_t2t.replace_head(build(include_top=False), 3)


def test_models_of_others_are_refused():
    backbone = build(include_top=False, pooling="token")
    own_head = keras.Model(backbone.input, keras.layers.Dense(10, name="mine")(backbone.output))
    with pytest.raises(ValueError, match="Expected a classifier, or a model that returns features"):
        keras_t2t.replace_head(own_head, 3)
    with pytest.raises(ValueError, match="Expected a model built by keras_t2t"):
        keras_t2t.replace_head(keras.Sequential([keras.layers.Dense(3)]), 3)


@pytest.mark.filterwarnings("error:The structure of")
def test_the_new_model_takes_its_images_as_the_old_one_did():
    assert keras_t2t.replace_head(build(), 3).predict(X, verbose=0).shape == (2, 3)


def test_labels_fit_the_logits():
    with pytest.raises(ValueError, match="Expected a label for each of 3 classes; received 2"):
        keras_t2t.layers.Predictions(labels=["a", "b"]).build((None, 3))
