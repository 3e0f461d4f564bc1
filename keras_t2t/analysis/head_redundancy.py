"""Redundancy of attention heads and blocks, which quantifies the diagnosis in section 1 of the paper."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from keras_t2t.analysis.costs import Cost, cost
from keras_t2t.analysis.geometry import distances, token_centers
from keras_t2t.analysis.similarity import attention_distance, centered_gram, cka, entropy, head_cosine, head_divergence
from keras_t2t.analysis.tracing import batches, check_output, run_with_attention, size_of_tokenized_images, to_numpy
from keras_t2t.models.graph import blocks_of, tokens_to_token_of

TITLES = {
    "cosine": "cosine similarity of heads",
    "divergence": "Jensen-Shannon divergence of heads (bits)",
    "entropy": "attention entropy (bits)",
    "distance": "attention distance (pixels)",
    "cka": "CKA of consecutive blocks",
}
"""Titles of the metrics of `Redundancy.by_block`."""


@dataclasses.dataclass(frozen=True)
class Redundancy:
    """Redundancy of a model's blocks over a set of images. All values are averages over images and queries.

    Glossary of shapes: L: blocks; H: heads.

    Attributes:
        blocks: Names of the blocks.
        cosine: Cosine similarity between the attention rows of two heads, `(L, H, H)`. 1 for identical heads.
        divergence: Jensen-Shannon divergence between them in bits, `(L, H, H)`. 0 for identical heads, at most 1.
        entropy: Entropy of the attention rows in bits, `(L, H)`. It is log2 N for uniform attention over N tokens.
        distance: Mean distance in pixels between the center of a token and the centers of the tokens it attends to, `(L, H)`.
            The class token is left out.
        cka: Linear CKA between the outputs of two blocks, `(L, L)`, with the tokens of an image as examples. 1 for outputs that
            are equal up to rotation and scale.
    """

    blocks: tuple[str, ...]
    cosine: np.ndarray
    divergence: np.ndarray
    entropy: np.ndarray
    distance: np.ndarray
    cka: np.ndarray

    def by_block(self) -> dict[str, np.ndarray]:
        """Returns one value per block.

        Returns:
            A dictionary of arrays `(L,)`: `"cosine"` and `"divergence"` averaged over pairs of heads, NaN for a single head;
            `"entropy"` and `"distance"` averaged over heads; `"cka"` with the previous block, NaN for the first block.
        """
        return {
            "cosine": _mean_over_pairs(self.cosine),
            "divergence": _mean_over_pairs(self.divergence),
            "entropy": self.entropy.mean(1),
            "distance": self.distance.mean(1),
            "cka": np.concatenate([[np.nan], np.diagonal(self.cka, 1)]),
        }


def _mean_over_pairs(matrices):
    """Averages `(L, H, H)` over pairs of different heads."""
    heads = matrices.shape[-1]
    pairs = ~np.eye(heads, dtype=bool)
    return matrices[:, pairs].mean(1) if heads > 1 else np.full(len(matrices), np.nan)


def redundancy(model: keras.Model, images: np.ndarray, batch_size: int = 4) -> Redundancy:
    """Measures the redundancy of a model over a set of images.

    The last block is computed for all tokens. Statistics are computed block by block. At any given time, memory holds the
    attention of one block, the block outputs of one batch, and a Gram matrix per block for one image. For T2TViT14, the Gram
    matrices (8 L N N bytes) take 4 MB at 224x224 and 37 MB at 384x384.

    Args:
        model: A model built by `keras_t2t`.
        images: Images of shape `(B, H, W, C)`, in the value range the model expects. The grid must have at least 3 tokens.
        batch_size: Number of images per forward pass. It does not change the result.

    Returns:
        The `Redundancy` of the model.

    Raises:
        ValueError: If `images` do not match the model's input shape or are too small.

    Example:

    >>> model = keras_t2t.T2TViTTiny32(weights="cifar10")
    >>> result = keras_t2t.analysis.redundancy(model, np.random.uniform(0, 255, (2, 32, 32, 3)))
    >>> result.cosine.shape, result.cka.shape
    ((5, 4, 4), (5, 5))
    """
    names, soft_splits = [block.name for block in blocks_of(model)], tokens_to_token_of(model).soft_splits
    sums, products = np.zeros(()), np.zeros((len(names), len(names)))
    for batch in batches(model, images, batch_size):
        token_distances = distances(token_centers(soft_splits, size_of_tokenized_images(model, batch)))
        if len(token_distances) < 3:
            raise ValueError(f"Expected images with at least 3 tokens; received: image size {tuple(batch.shape[1:3])}")
        statistics, outputs = _measure_batch(model, batch, token_distances)
        sums = sums + len(batch) * statistics
        for image_outputs in zip(*outputs, strict=True):
            grams = np.stack([centered_gram(features).ravel() for features in image_outputs])
            products += grams @ grams.T
    statistics = sums / len(images)  # (L, 2 H + 2, H)
    heads = statistics.shape[-1]
    cosine, divergence, others = np.split(statistics, [heads, 2 * heads], axis=1)
    return Redundancy(tuple(names), cosine, divergence, others[:, 0], others[:, 1], cka(products))


def _measure_batch(model, batch, token_distances):
    """Returns the statistics `(L, 2 H + 2, H)` of a batch, and the output `(B, N, D)` of each block."""
    statistics, outputs = [], []

    def visit_block(block, weights, output):
        statistics.append(_statistics(to_numpy(weights), token_distances))
        outputs.append(to_numpy(output))

    check_output(model, batch, run_with_attention(model, batch, visit_block))
    return np.stack(statistics), outputs


def _statistics(weights, token_distances):
    """Stacks cosine `(H, H)`, divergence `(H, H)`, entropy `(1, H)` and distance `(1, H)` of attention `(B, H, N, N)`."""
    rows = entropy(weights).mean((0, 2)), attention_distance(weights, token_distances)
    return np.concatenate([head_cosine(weights), head_divergence(weights), np.stack(rows)])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Cost and redundancy of one of the models being compared.

    Attributes:
        name: Name of the model.
        cost: Cost at the size of its images.
        redundancy: Redundancy over its images.
    """

    name: str
    cost: Cost
    redundancy: Redundancy

    def summary(self) -> dict[str, float]:
        """Returns one value per metric.

        Returns:
            A dictionary with `"parameters"`, `"multiply_accumulates"`, and the averages of `Redundancy.by_block` over the
            blocks.
        """
        by_block = {name: values[~np.isnan(values)] for name, values in self.redundancy.by_block().items()}
        averages = {name: float(values.mean()) if len(values) else np.nan for name, values in by_block.items()}
        return {"parameters": self.cost.parameters, "multiply_accumulates": self.cost.multiply_accumulates, **averages}


def compare(
    models: Sequence[keras.Model], images: np.ndarray | list[np.ndarray] | tuple[np.ndarray, ...], batch_size: int = 4
) -> list[Comparison]:
    """Compares the cost and redundancy of several models.

    Args:
        models: Models built by `keras_t2t`.
        images: One array of images `(B, H, W, C)` for all models, or a list with one such array per model.
        batch_size: Number of images per forward pass.

    Returns:
        A `Comparison` for each model, in the order of `models`.

    Raises:
        ValueError: If the number of arrays differs from the number of models, or if `images` do not match a model's input shape
            or are too small.

    Example:

    >>> models = [keras_t2t.T2TViTTiny32(weights="cifar10"), keras_t2t.T2TViTTiny32(weights=None)]
    >>> results = keras_t2t.analysis.compare(models, np.random.uniform(0, 255, (2, 32, 32, 3)))
    >>> [result.summary()["parameters"] for result in results]
    [764416, 892126]
    """
    arrays = list(images) if isinstance(images, (list, tuple)) else [images] * len(models)
    if len(arrays) != len(models):
        raise ValueError(
            f"Expected one array of images, or one for each of {len(models)} models; received: {len(arrays)} arrays"
        )
    return [
        Comparison(model.name, cost(model, np.shape(array)[1:]), redundancy(model, array, batch_size))
        for model, array in zip(models, arrays, strict=True)
    ]
