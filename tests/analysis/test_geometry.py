import numpy as np
import pytest

from keras_t2t.analysis.geometry import distances, nearest_tokens, to_pixels, token_centers
from keras_t2t.variants import VARIANTS
from tests.conftest import SMALL_CONFIGS
from tests.numpy_t2t import unfold


@pytest.mark.parametrize("kind", SMALL_CONFIGS)
def test_centers_are_the_means_of_the_windows(kind):
    """Splits a map of positions and averages each window. In the middle of the map, padding has no effect."""
    splits = SMALL_CONFIGS[kind]["soft_splits"]
    rows, columns = token_centers(splits, (241, 190))
    positions = np.stack(np.meshgrid(np.arange(241.0), np.arange(190.0), indexing="ij"), -1)
    for split in splits:
        windows, grid = unfold(positions, *split)
        positions = windows.reshape(*grid, 2, -1).mean(-1)
    inner = (slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(positions[..., 0][inner], np.broadcast_to(rows[:, None], grid)[inner])
    np.testing.assert_allclose(positions[..., 1][inner], np.broadcast_to(columns, grid)[inner])


def test_centers_of_published_variants():
    rows, columns = token_centers(VARIANTS["t2t_vit_14"].config.soft_splits, (224, 160))
    np.testing.assert_array_equal(rows, 16 * np.arange(14) + 1)
    np.testing.assert_array_equal(columns, 16 * np.arange(10) + 1)
    np.testing.assert_array_equal(token_centers(VARIANTS["vit_small_16"].config.soft_splits, (48, 32))[0], [7.5, 23.5, 39.5])


def test_nearest_tokens():
    centers = np.array([1.0, 5.0, 9.0]), np.array([2.0, 4.0])
    np.testing.assert_array_equal(nearest_tokens(centers, [(0, 0), (6.9, 3.1), (100, 100)]), [0, 3, 5])


def test_distances():
    centers = np.array([0.0, 3.0]), np.array([10.0, 14.0, 18.0])
    expected = [[np.hypot(3 * (i // 3 - j // 3), 4 * (i % 3 - j % 3)) for j in range(6)] for i in range(6)]
    np.testing.assert_allclose(distances(centers), expected)


def test_interpolation_is_linear_between_centers_and_constant_beyond():
    centers = np.array([1.0, 5.0, 9.0]), np.array([2.0, 4.0])
    plane = 3 * centers[0][:, None] - 2 * centers[1]
    pixels = to_pixels(np.stack([plane, 0 * plane]), centers, (12, 7))
    y, x = np.clip(np.arange(12), 1, 9), np.clip(np.arange(7), 2, 4)
    np.testing.assert_allclose(pixels[0], 3 * y[:, None] - 2 * x)
    assert pixels.shape == (2, 12, 7) and not pixels[1].any()
