"""Compares the models with the outputs of the authors' PyTorch model and with plain NumPy. Runs on every backend."""

import keras
import numpy as np
import pytest

import keras_t2t
from tests.conftest import (
    CONSTRUCTORS,
    SMALL_CONFIGS,
    initialize_with_zeros,
    outputs_of,
    relative_error,
    seeded_parameters,
)
from tests.numpy_t2t import NumpyT2T
from tests.reference_parameters import reference_images

TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def zero_initialization(monkeypatch):
    """All weights are loaded anyway, and JAX would compile an initializer for every shape."""
    initialize_with_zeros(monkeypatch)


def test_outputs_match_the_reference(reference):
    model = CONSTRUCTORS[reference["variant"]](weights=None, include_preprocessing=False, classifier_activation=None)
    keras_t2t.load_checkpoint(model, reference["parameters"])
    head = model.get_layer("head")
    with_features = keras.Model(model.inputs, [model.output, head.input])
    if reference["variant"] == "t2t_vit_7":
        outputs = with_features.predict(reference["images"], verbose=0)  # compiles the whole model
    else:
        outputs = outputs_of(with_features, reference["images"])
    assert relative_error(outputs[0], reference["logits"]) < TOLERANCE
    assert relative_error(outputs[1], reference["features"]) < TOLERANCE
    assert model.count_params() == reference["parameter_count"]
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == reference["trainable_count"]
    if "stage_tokens" in reference:
        for name, value in stages(model, reference["images"][:1]).items():
            assert relative_error(value, reference[f"stage_{name}"]) < TOLERANCE, name


def stages(model, images):
    """Returns the intermediate results in the form of the reference data: every 7th token of the token attentions."""
    t2t = model.get_layer("tokens_to_token")
    first = t2t.attentions[0](as_sequence(t2t.splits[0](images)))
    second = t2t.attentions[1](as_sequence(t2t.splits[1](keras.ops.reshape(first, (1, 56, 56, 64)))))
    outputs = [model.get_layer(name).output for name in ("tokens_to_token", "block0")]
    tokens, block0 = outputs_of(keras.Model(model.inputs, outputs), images)
    return {
        "attention1": keras.ops.convert_to_numpy(first)[:, ::7],
        "attention2": keras.ops.convert_to_numpy(second)[:, ::7],
        "tokens": tokens.reshape(1, -1, tokens.shape[-1]),
        "block0": block0,
    }


def as_sequence(grid):
    return keras.ops.reshape(grid, (grid.shape[0], -1, grid.shape[-1]))


@pytest.mark.parametrize("small_config", SMALL_CONFIGS, indirect=True)
def test_small_configurations_match_numpy(small_config):
    size, channels, classes = (31, 23), 2, 7
    parameters = seeded_parameters(small_config, size, channels, classes)
    images = reference_images(3, *size, seed=5)[..., :channels]
    expected = NumpyT2T(small_config, parameters)
    common = {"include_preprocessing": False, "input_shape": (*size, channels)}

    model = keras_t2t.T2TViT(small_config, classes=classes, classifier_activation=None, **common)
    keras_t2t.load_checkpoint(model, parameters)
    logits = np.stack([expected.logits(image) for image in images])
    assert relative_error(outputs_of(model, images), logits) < TOLERANCE

    features = keras_t2t.T2TViT(small_config, include_top=False, **common)
    keras_t2t.load_checkpoint(features, parameters)
    tokens = np.stack([expected.encode(image)[0] for image in images])
    grid = expected.encode(images[0])[1]
    assert relative_error(features.predict(images, verbose=0), tokens[:, 1:].reshape(3, *grid, -1)) < TOLERANCE


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras computes in float32 on JAX and PyTorch")
def test_float64_matches_numpy(small_config):
    size = (31, 23)
    parameters = seeded_parameters(small_config, size, classes=7)
    image = reference_images(1, *size, seed=5)
    kwargs = {"include_preprocessing": False, "classifier_activation": None, "dtype": "float64"}
    model = keras_t2t.T2TViT(small_config, input_shape=(*size, 3), classes=7, **kwargs)
    keras_t2t.load_checkpoint(model, parameters)
    logits = model.predict(image, verbose=0)[0]
    assert relative_error(logits, NumpyT2T(small_config, parameters).logits(image[0])) < 1e-12


@pytest.mark.parametrize("variant", ["t2t_vit_t_19", "t2t_vit_24"])
@pytest.mark.slow
def test_variants_without_reference_data_match_numpy(variant):
    model = CONSTRUCTORS[variant](weights=None, include_preprocessing=False, classifier_activation=None, classes=10)
    parameters = seeded_parameters(keras_t2t.config_of(model), (224, 224), classes=10, seed=23)
    keras_t2t.load_checkpoint(model, parameters)
    images = reference_images(1, 224, 224, seed=23)
    expected = NumpyT2T(keras_t2t.config_of(model), parameters).logits(images[0])
    assert relative_error(outputs_of(model, images)[0], expected) < TOLERANCE
