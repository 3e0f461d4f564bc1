import keras
import numpy as np
import pytest

from keras_t2t.layers import PositionEmbedding
from keras_t2t.layers.position_embedding import resize_positions, sinusoids
from tests.conftest import DATA, relative_error
from tests.reference_parameters import reference_parameter, sinusoid

RESIZED = np.load(DATA / "reference" / "position_resize.npz")


def grids(name):
    return [tuple(int(n) for n in grid.split("x")) for grid in name.split("_to_")]


@pytest.mark.parametrize("name", RESIZED.files)
def test_resized_tables_match_the_reference(name):
    old, new = grids(name)
    table = reference_parameter("pos_embed", (1, old[0] * old[1] + 1, 32), 3)[0]
    assert relative_error(keras.ops.convert_to_numpy(resize_positions(table, old, new)), RESIZED[name][0]) < 1e-5


def test_resizing_to_the_same_grid_changes_nothing():
    table = np.random.default_rng(0).standard_normal((1 + 3 * 5, 4)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(resize_positions(table, (3, 5), (3, 5))), table)


def test_positions_are_resized_at_run_time_to_the_grid_of_like():
    layer = PositionEmbedding((3, 5), learned=True)
    layer.build((None, 16, 4))
    tokens = np.random.default_rng(0).standard_normal((2, 1 + 7 * 2, 4)).astype("float32")
    table = keras.ops.convert_to_numpy(resize_positions(layer.table.value, (3, 5), (7, 2)))
    y = keras.ops.convert_to_numpy(layer(tokens, np.zeros((2, 7, 2, 1), "float32")))
    np.testing.assert_allclose(y, tokens + table, rtol=1e-5, atol=1e-6)


def test_sinusoids_match_the_reference():
    np.testing.assert_allclose(sinusoids(197, 64), sinusoid(197, 64), atol=1e-6)


def test_only_learned_positions_are_trainable():
    frozen, learned = PositionEmbedding((2, 3)), PositionEmbedding((2, 3), learned=True)
    for layer in (frozen, learned):
        layer.build((None, 7, 8))
        layer.trainable = True
    assert (len(frozen.trainable_weights), len(frozen.weights)) == (0, 1)
    assert len(learned.trainable_weights) == 1
    np.testing.assert_allclose(keras.ops.convert_to_numpy(frozen.table), sinusoid(7, 8), atol=1e-6)


def test_tokens_that_do_not_fit_the_grid_raise():
    tokens, like = np.zeros((1, 8, 4), "float32"), np.zeros((1, 3, 3, 1), "float32")
    with pytest.raises(ValueError, match=r"and a grid of 2x3 tokens, as given by `grid_size`; .*=\(1, 8, 4\)"):
        PositionEmbedding((2, 3))(tokens)
    with pytest.raises(ValueError, match=r"and a grid of 3x3 tokens, as given by `like`; .*=\(1, 8, 4\)"):
        PositionEmbedding((2, 3))(tokens, like)
    with pytest.raises(ValueError, match=r"expected grid_size to be \(rows, columns\); received: grid_size=14"):
        PositionEmbedding(14)
