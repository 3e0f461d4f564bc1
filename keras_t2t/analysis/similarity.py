"""How alike and how wide attention is, and how alike features are: plain numpy, nothing but arrays.

Glossary of shapes: B: images; H: heads; N: tokens; D: width.
"""

import numpy as np


def entropy(weights) -> np.ndarray:
    """Returns the entropy in bits of distributions (..., N): 0 where all is on one token, log2 N where it is spread evenly."""
    weights = np.asarray(weights, "float64")
    return -(weights * np.log2(np.where(weights > 0, weights, 1))).sum(-1)


def head_cosine(weights) -> np.ndarray:
    """Returns the cosine between heads' rows of attention, averaged over images and queries.

    Args:
        weights: (B, H, N, N).

    Returns:
        (H, H), 1 for heads that are the same.
    """
    rows = np.asarray(weights, "float64").swapaxes(1, 2)  # (B, N, H, N)
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows @ rows.swapaxes(-1, -2)).mean((0, 1))


def head_divergence(weights) -> np.ndarray:
    """Returns the Jensen-Shannon divergence in bits between heads' rows of attention, averaged over images and queries.

    Lin, "Divergence Measures Based on the Shannon Entropy", 1991.

    Args:
        weights: (B, H, N, N), rows sum to 1.

    Returns:
        (H, H), 0 for heads that are the same, 1 for heads that never look at the same token.
    """
    weights = np.asarray(weights, "float64")
    entropies = entropy(weights).mean((0, 2))  # (H,)
    heads = len(entropies)
    result = np.zeros((heads, heads))
    for i in range(heads):
        for j in range(i):
            mixed = entropy((weights[:, i] + weights[:, j]) / 2).mean()
            result[i, j] = result[j, i] = mixed - (entropies[i] + entropies[j]) / 2
    return result


def attention_distance(weights, distances) -> np.ndarray:
    """Returns how far each head looks on average: distances weighted by attention, averaged over images and queries.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, appendix D.7. The class token lies nowhere: it is left out,
    and the attention to the others is scaled to sum to 1. A row that is all on the class token counts as 0.

    Args:
        weights: (B, H, 1 + N, 1 + N), the class token first.
        distances: (N, N) between the tokens of the grid, of any unit.

    Returns:
        (H,), in the unit of the distances.
    """
    grid = np.asarray(weights, "float64")[..., 1:, 1:]
    mass = grid.sum(-1)
    return ((grid * distances).sum(-1) / np.where(mass > 0, mass, 1)).mean((0, 2))


def centered_gram(features) -> np.ndarray:
    """Returns the matrix of inner products of tokens, centered so that its products with another are unbiased.

    That is U-centering (Szekely and Rizzo, "Partial Distance Correlation with Methods for Dissimilarities", 2014): two such
    matrices, multiplied number by number and summed, give N (N - 3) times the unbiased HSIC of Song et al., "Feature Selection
    via Dependence Maximization", 2012, with linear kernels.

    Args:
        features: (N, D) of 4 tokens or more.

    Returns:
        (N, N), float64, its diagonal and the sums of its rows 0.
    """
    features = np.asarray(features, "float64")
    features = features - features.mean(0)  # changes nothing but rounding
    count = len(features)
    gram = features @ features.T
    np.fill_diagonal(gram, 0)
    rows = gram.sum(0)
    gram += rows.sum() / ((count - 1) * (count - 2)) - (rows[:, None] + rows) / (count - 2)
    np.fill_diagonal(gram, 0)
    return gram


def cka(products) -> np.ndarray:
    """Returns linear CKA (L, L) from the products (L, L) of centered Gram matrices of L layers, summed over images.

    Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, with the unbiased estimator of
    Nguyen, Raghu and Kornblith, "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021: 1 for the same features up to
    rotation and scale, around 0 for independent ones, however wide.
    """
    scale = np.sqrt(np.diagonal(products))
    return products / (scale[:, None] * scale)
