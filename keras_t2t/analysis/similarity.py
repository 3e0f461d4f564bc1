"""Similarity, entropy and distance of attention, and similarity of features. Plain NumPy.

Glossary of shapes: B: images; H: heads; N: tokens; D: width; L: layers.
"""

import numpy as np


def entropy(weights: np.ndarray) -> np.ndarray:
    """Returns the entropy of distributions in bits.

    Args:
        weights: Distributions of shape `(..., N)`, which sum to 1 over the last axis.

    Returns:
        An array of shape `(...)`: 0 if all the weight is on one token, log2 N if the weights are uniform.
    """
    weights = np.asarray(weights, "float64")
    return -(weights * np.log2(np.where(weights > 0, weights, 1))).sum(-1)


def head_cosine(weights: np.ndarray) -> np.ndarray:
    """Returns the cosine similarity between the attention rows of two heads, averaged over images and queries.

    Args:
        weights: Attention weights of shape `(B, H, N, N)`.

    Returns:
        An array of shape `(H, H)`: 1 for identical heads.
    """
    rows = np.asarray(weights, "float64").swapaxes(1, 2)  # (B, N, H, N)
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows @ rows.swapaxes(-1, -2)).mean((0, 1))


def head_divergence(weights: np.ndarray) -> np.ndarray:
    """Returns the Jensen-Shannon divergence between the attention rows of two heads, averaged over images and queries.

    Source: Lin, "Divergence Measures Based on the Shannon Entropy", 1991.

    Args:
        weights: Attention weights of shape `(B, H, N, N)`. Rows sum to 1.

    Returns:
        An array of shape `(H, H)`, in bits: 0 for identical heads, 1 for heads that never attend to the same token.
    """
    weights = np.asarray(weights, "float64")
    entropies = entropy(weights).mean((0, 2))  # (H,)
    heads = len(entropies)
    result = np.zeros((heads, heads))
    for i in range(heads):
        for j in range(i):
            mixture_entropy = entropy((weights[:, i] + weights[:, j]) / 2).mean()
            result[i, j] = result[j, i] = mixture_entropy - (entropies[i] + entropies[j]) / 2
    return result


def attention_distance(weights: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Returns the mean attention distance of each head: distances weighted by attention, averaged over images and queries.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, appendix D.7. The class token has no position, so it
    is left out and the attention to the other tokens is rescaled to sum to 1. A row with all its attention on the class token
    counts as 0.

    Args:
        weights: Attention weights of shape `(B, H, 1 + N, 1 + N)`, with the class token first.
        distances: Distances between the tokens of the grid, of shape `(N, N)`, in any unit.

    Returns:
        An array of shape `(H,)`, in the unit of `distances`.
    """
    grid = np.asarray(weights, "float64")[..., 1:, 1:]
    total = grid.sum(-1)
    return ((grid * distances).sum(-1) / np.where(total > 0, total, 1)).mean((0, 2))


def centered_gram(features: np.ndarray) -> np.ndarray:
    """Returns the U-centered Gram matrix of features, the basis of an unbiased HSIC.

    U-centering is from Szekely and Rizzo, "Partial Distance Correlation with Methods for Dissimilarities", 2014. The sum of the
    elementwise product of two such matrices is N (N - 3) times the unbiased HSIC of Song et al., "Feature Selection via
    Dependence Maximization", 2012, with linear kernels.

    Args:
        features: Features of shape `(N, D)`, for at least 4 tokens.

    Returns:
        A float64 array of shape `(N, N)`, whose diagonal and row sums are 0.
    """
    features = np.asarray(features, "float64")
    features = features - features.mean(0)  # does not change the result, but reduces rounding errors
    count = len(features)
    gram = features @ features.T
    np.fill_diagonal(gram, 0)
    row_sums = gram.sum(0)
    gram += row_sums.sum() / ((count - 1) * (count - 2)) - (row_sums[:, None] + row_sums) / (count - 2)
    np.fill_diagonal(gram, 0)
    return gram


def cka(products: np.ndarray) -> np.ndarray:
    """Returns the linear CKA between layers.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, with the unbiased estimator
    of Nguyen, Raghu and Kornblith, "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021.

    Args:
        products: Inner products of the centered Gram matrices of L layers, summed over images, of shape `(L, L)`.

    Returns:
        An array of shape `(L, L)`: 1 for features that are equal up to rotation and scale, around 0 for independent features of
        any width.
    """
    scale = np.sqrt(np.diagonal(products))
    return products / (scale[:, None] * scale)
