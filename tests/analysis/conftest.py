"""A model of every kind with seeded parameters, and the same in plain numpy."""

import numpy as np
import pytest

import keras_t2t
from tests.conftest import SMALL_CONFIGS, seeded_parameters
from tests.numpy_t2t import NumpyT2T

SIZE = (31, 46)


@pytest.fixture(params=SMALL_CONFIGS, scope="session")
def pair(request):
    """A classifier of 5 classes for images of 31x46 pixels, the same in numpy, and the kind of its configuration."""
    return (*model_and_numpy(request.param), request.param)


def model_and_numpy(kind, size=SIZE, **kwargs):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS[kind])
    parameters = seeded_parameters(config, size, classes=5)
    arguments = {"input_shape": (*size, 3), "classes": 5, "include_preprocessing": False, **kwargs}
    model = keras_t2t.T2TViT(config, name=kind, **arguments)
    keras_t2t.load_checkpoint(model, parameters, **({} if kwargs.get("include_top", True) else {"skip_head": True}))
    return model, NumpyT2T(config, parameters)


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(5).standard_normal((3, *SIZE, 3)).astype("float32")


def spread(weights, seed=0):
    """Random attention of the shape `weights`, rows of which sum to 1."""
    rows = np.random.default_rng(seed).exponential(size=weights) ** 3
    return rows / rows.sum(-1, keepdims=True)
