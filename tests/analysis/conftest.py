"""One model of every kind with seeded parameters, and its plain NumPy counterpart."""

import keras
import numpy as np
import pytest

import keras_t2t
from tests.conftest import SMALL_CONFIGS, mostly_slow, seeded_parameters
from tests.numpy_t2t import NumpyT2T

SIZE = (31, 46)
FAST_KINDS = ("performer", "dense") if keras.backend.backend() == "tensorflow" else ("performer",)
"""The kinds of models that the fast tests analyze. JAX compiles each operation of each kind."""


@pytest.fixture(params=mostly_slow(SMALL_CONFIGS, *FAST_KINDS), scope="session")
def pair(request):
    """A classifier with 5 classes for 31x46 images, its NumPy counterpart, and the kind of its configuration."""
    return (*model_and_numpy(request.param), request.param)


def model_and_numpy(kind, size=SIZE, configs=SMALL_CONFIGS, **kwargs):
    """Builds a model and its NumPy counterpart with the same parameters."""
    config = keras_t2t.T2TConfig(**configs[kind])
    parameters = seeded_parameters(config, size, classes=5)
    arguments = {"input_shape": (*size, 3), "classes": 5, "include_preprocessing": False, **kwargs}
    model = keras_t2t.T2TViT(config, name=kind, **arguments)
    keras_t2t.load_checkpoint(model, parameters, **({} if kwargs.get("include_top", True) else {"skip_head": True}))
    return model, NumpyT2T(config, parameters)


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(5).standard_normal((3, *SIZE, 3)).astype("float32")


def random_attention(shape, seed=0):
    """Returns random attention weights. Their rows sum to 1."""
    rows = np.random.default_rng(seed).exponential(size=shape) ** 3
    return rows / rows.sum(-1, keepdims=True)
