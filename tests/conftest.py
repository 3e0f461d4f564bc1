"""Shared by several tests: constructors by variant, seeded parameters, reference outputs and small configurations."""

import contextlib
import functools
import gc
import json
import pathlib
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_t2t
from keras_t2t.configs import token_grid
from keras_t2t.variants import VARIANTS
from keras_t2t.weights.names import name_map
from tests.reference_parameters import reference_images, reference_parameter

DATA = pathlib.Path(__file__).parent / "data"

CONSTRUCTORS = {
    "t2t_vit_7": keras_t2t.T2TViT7,
    "t2t_vit_10": keras_t2t.T2TViT10,
    "t2t_vit_12": keras_t2t.T2TViT12,
    "t2t_vit_14": keras_t2t.T2TViT14,
    "t2t_vit_19": keras_t2t.T2TViT19,
    "t2t_vit_24": keras_t2t.T2TViT24,
    "t2t_vit_t_14": keras_t2t.T2TViTt14,
    "t2t_vit_t_19": keras_t2t.T2TViTt19,
    "t2t_vit_t_24": keras_t2t.T2TViTt24,
    "t2t_vit_14_resnext": keras_t2t.T2TViT14ResNeXt,
    "t2t_vit_14_wide": keras_t2t.T2TViT14Wide,
    "t2t_vit_14_se": keras_t2t.T2TViT14SE,
    "t2t_vit_16_ghost": keras_t2t.T2TViT16Ghost,
    "t2t_vit_dense": keras_t2t.T2TViTDense,
    "vit_small_16": keras_t2t.ViTSmall16,
    "t2t_vit_tiny_32": keras_t2t.T2TViTTiny32,
}

_SMALL = {
    "token_dim": 10,
    "soft_splits": ((5, 3, 2), (3, 2, 1), (3, 1, 0)),
    "embed_dim": 18,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2.0,
}
SMALL_CONFIGS = {
    "performer": _SMALL,
    "transformer": {**_SMALL, "token_attention": "transformer", "soft_splits": ((4, 3, 1), (3, 2, 0))},
    "convolution": {**_SMALL, "token_attention": "convolution", "qkv_bias": True, "mlp_ratio": 1.5},
    "patches": {**_SMALL, "token_attention": "convolution", "soft_splits": ((5, 4, 0),), "learned_positions": True},
    "squeeze_excite": {**_SMALL, "embed_dim": 36, "block": "squeeze_excite"},
    "ghost": {**_SMALL, "block": "ghost", "norm_epsilon": 1e-3},
    "dense": {**_SMALL, "block": "dense", "depth": (2, 1, 3), "growth": 8, "embed_dim": 16, "num_heads": 2},
}
"""One small configuration of each kind, with different values for all dimensions, for images of about 30 pixels."""

PYRAMID_CONFIGS = {
    kind: {**config, "soft_splits": ((5, 4, 1), (3, 2, 0)) if kind == "transformer" else ((5, 2, 2), (3, 2, 1), (3, 2, 0))}
    for kind, config in SMALL_CONFIGS.items()
    if kind != "patches"
} | {"patches": SMALL_CONFIGS["patches"]}
"""The same with strides that are powers of two, as the levels of a feature pyramid are."""


gc.set_threshold(100_000, 50, 50)  # TensorFlow creates so many objects that the default would collect garbage all the time
gc.freeze()  # leaves out what the imports above created, which takes most of the time of a collection


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Seeds every test before its fixtures are set up, so that random weights and data are the same in each run."""
    # Setting TensorFlow's own seed clears its caches, so it is only done where a test has changed it.
    is_seeded = tf.compat.v1.random.get_seed(1) == (0, 1)
    with mock.patch("tensorflow.random.set_seed") if is_seeded else contextlib.nullcontext():
        keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def memory():
    """Frees what the models of a test file leave behind."""
    yield
    keras.backend.clear_session()
    gc.collect()


def mostly_slow(values, *fast):
    """Returns parameters of which only those in `fast` are tested by `./scripts/test` without `--all`."""

    def slow(value):
        return pytest.param(*(value if isinstance(value, tuple) else [value]), marks=pytest.mark.slow)

    return [value if value in fast else slow(value) for value in values]


def slow_on_tensorflow(test):
    """Marks a test as slow, except on other backends, where no faster test covers the same and slow tests are left out."""
    return pytest.mark.slow(test) if keras.backend.backend() == "tensorflow" else test


def initialize_with_zeros(patch):
    """Initializes kernels with zeros, so that large models are built in half of the time."""
    patch.setattr(keras.initializers.TruncatedNormal, "__call__", lambda self, shape, dtype=None: np.zeros(shape, dtype))


@functools.cache
def variant_model(variant):
    """Returns the classifier of a variant without meaningful weights, shared by all tests that do not modify it."""
    with pytest.MonkeyPatch.context() as patch:
        initialize_with_zeros(patch)
        return CONSTRUCTORS[variant](weights=None)


@pytest.fixture(params=mostly_slow(SMALL_CONFIGS, "performer", "ghost"))
def small_config(request):
    return keras_t2t.T2TConfig(**SMALL_CONFIGS[request.param])


REFERENCES = [name for name in VARIANTS if (DATA / "reference" / f"{name}.npz").exists()]


@pytest.fixture(params=REFERENCES)
def reference(request):
    """Returns the name, images, parameters and outputs of a variant of the authors' model."""
    data = np.load(DATA / "reference" / f"{request.param}.npz")
    seed, size = int(data["seed"]), int(data["image_size"])
    shapes = {str(name): tuple(json.loads(str(shape))) for name, shape in zip(data["names"], data["shapes"], strict=True)}
    parameters = {name: reference_parameter(name, shape, seed) for name, shape in shapes.items()}
    return {"variant": request.param, "images": reference_images(2, size, size, seed), "parameters": parameters, **data}


def seeded_parameters(config, image_size, channels=3, classes=1000, seed=11):
    """Returns a checkpoint with seeded values for a configuration and images of `(height, width)`."""
    rows, columns = token_grid(config.soft_splits, *image_size)
    entries = name_map(config, 1 + rows * columns, channels, classes)
    return {row.source: reference_parameter(row.source, row.shape, seed) for row in entries}


def outputs_of(model, images):
    """Returns the outputs of a model as arrays. Unlike `predict`, it does not trace a graph, which takes seconds."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images, training=False))


def relative_error(value, expected):
    """Returns the norm of the difference, divided by the norm of the expected value."""
    value, expected = (keras.ops.convert_to_numpy(array).astype("float64") for array in (value, expected))
    assert value.shape == expected.shape
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)
