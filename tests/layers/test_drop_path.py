import keras
import numpy as np
import pytest

from keras_t2t.layers import DropPath


def test_drops_entire_samples_and_keeps_the_mean():
    x = np.ones((2000, 3, 5), "float32")
    y = keras.ops.convert_to_numpy(DropPath(0.25, seed=1)(x, training=True))
    per_sample = y[:, 0, 0]
    np.testing.assert_array_equal(y, np.broadcast_to(per_sample[:, None, None], y.shape))
    np.testing.assert_allclose(np.unique(per_sample), [0, 1 / 0.75], rtol=1e-6)
    assert abs((per_sample == 0).mean() - 0.25) < 0.04


def test_returns_its_input_outside_training():
    x = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(DropPath(0.9)(x)), x)


def test_invalid_rate_raises():
    with pytest.raises(ValueError, match=r"expected a rate in \[0, 1\); received: rate=1.5"):
        DropPath(1.5)
