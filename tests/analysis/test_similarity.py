import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy

from keras_t2t.analysis.similarity import attention_distance, centered_gram, cka, entropy, head_cosine, head_divergence
from tests.analysis.conftest import random_attention


def test_entropy():
    np.testing.assert_allclose(entropy(np.full((2, 8), 1 / 8)), 3)
    np.testing.assert_array_equal(entropy(np.eye(5)), 0)
    rows = random_attention((3, 11))
    np.testing.assert_allclose(entropy(rows), scipy_entropy(rows, base=2, axis=-1))


def test_identical_and_disjoint_heads():
    head = random_attention((2, 1, 6, 6))
    identical = np.repeat(head, 3, axis=1)
    np.testing.assert_allclose(head_cosine(identical), 1)
    np.testing.assert_allclose(head_divergence(identical), 0, atol=1e-12)
    disjoint = np.concatenate([np.tile(np.eye(6)[0], (2, 1, 6, 1)), np.tile(np.eye(6)[3], (2, 1, 6, 1))], axis=1)
    np.testing.assert_allclose(head_cosine(disjoint), np.eye(2))
    np.testing.assert_allclose(head_divergence(disjoint), 1 - np.eye(2))


def test_head_similarity_matches_a_loop_over_rows():
    weights = random_attention((2, 3, 5, 5))
    cosine, divergence = np.zeros((2, 3, 3))
    for i in range(3):
        for j in range(3):
            rows = [(weights[b, i, n], weights[b, j, n]) for b in range(2) for n in range(5)]
            cosine[i, j] = np.mean([p @ q / np.sqrt(p @ p * (q @ q)) for p, q in rows])
            divergence[i, j] = np.mean([jensenshannon(p, q, base=2) ** 2 for p, q in rows])
    np.testing.assert_allclose(head_cosine(weights), cosine)
    np.testing.assert_allclose(head_divergence(weights), divergence, atol=1e-9)


def test_attention_distance():
    distances = np.abs(np.arange(6)[:, None] - np.arange(6)) * 16.0
    uniform = np.full((2, 1, 7, 7), 1 / 7)
    identity = np.tile(np.eye(7), (2, 1, 1, 1))
    values = attention_distance(np.concatenate([uniform, identity], 1), distances)
    np.testing.assert_allclose(values, [16 * (6**2 - 1) / (3 * 6), 0])  # the mean of |i - j| over n tokens is (n^2 - 1) / 3n
    weights = random_attention((2, 2, 7, 7))
    grid = weights[..., 1:, 1:] / weights[..., 1:, 1:].sum(-1, keepdims=True)
    np.testing.assert_allclose(attention_distance(weights, distances), np.einsum("bhij,ij->h", grid, distances) / 12)
    weights[0, 0, 1:] = np.eye(weights.shape[-1])[0]  # all attention on the class token, which rounding to 16 bits can cause
    assert np.isfinite(attention_distance(weights, distances)).all()


def unbiased_hsic(k, m):
    """Equation 5 of Song et al., 2012, for kernel matrices `(n, n)`."""
    k, m, n = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), len(k)
    ones = np.ones(n)
    terms = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2)) - 2 / (n - 2) * ones @ k @ m @ ones
    return terms / (n * (n - 3))


def test_products_of_centered_grams_match_unbiased_hsic():
    x, y = (np.random.default_rng(i).standard_normal((9, width)) + 2 for i, width in enumerate((5, 13)))
    x[:, 0] = y[:, 0] ** 2
    product = (centered_gram(x) * centered_gram(y)).sum() / (9 * 6)
    assert product == pytest.approx(unbiased_hsic(x @ x.T, y @ y.T))


def test_cka_of_rotated_and_independent_features():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 300))
    rotated = 7 * x @ np.linalg.qr(rng.standard_normal((300, 300)))[0] + 5
    independent = rng.standard_normal((60, 500))
    grams = np.stack([centered_gram(features).ravel() for features in (x, rotated, independent)])
    result = cka(grams @ grams.T)
    np.testing.assert_allclose(result[:2, :2], 1)
    assert np.abs(result[2, :2]).max() < 0.15  # the biased estimate is above 0.8
    centered = [features - features.mean(0) for features in (x, independent)]
    k, m = (features @ features.T for features in centered)
    assert (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()) > 0.8
