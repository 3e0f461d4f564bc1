"""How much of what a model computes it computes twice: the diagnosis of the paper (section 1) as numbers."""

import dataclasses

import keras
import numpy as np

from keras_t2t.analysis.costs import Cost, cost
from keras_t2t.analysis.geometry import distances, token_centers
from keras_t2t.analysis.model_parts import batches, run_encoder, split_model, to_numpy
from keras_t2t.analysis.similarity import attention_distance, centered_gram, cka, entropy, head_cosine, head_divergence


@dataclasses.dataclass(frozen=True)
class Redundancy:
    """What a model's blocks do with a set of images; averages over images and queries.

    Glossary of shapes: L: blocks; H: heads.

    Attributes:
        blocks: names of the blocks.
        cosine: (L, H, H), cosine between the rows of attention of two heads: 1 if they are the same.
        divergence: (L, H, H), Jensen-Shannon divergence between them in bits: 0 if they are the same, at most 1.
        entropy: (L, H), entropy of the rows of attention in bits: log2 N if all N tokens are attended to evenly.
        distance: (L, H), mean distance in pixels between the centers of a token and of those it attends to, class token aside.
        cka: (L, L), linear CKA between the blocks' results, the tokens of an image being the examples: 1 if they are the same
            up to rotation and scale.
    """

    blocks: tuple[str, ...]
    cosine: np.ndarray
    divergence: np.ndarray
    entropy: np.ndarray
    distance: np.ndarray
    cka: np.ndarray

    def by_block(self) -> dict[str, np.ndarray]:
        """Returns averages for each block (L,), over pairs of heads or over heads, and its CKA with the block before or nan."""
        return {
            "cosine": _over_pairs(self.cosine),
            "divergence": _over_pairs(self.divergence),
            "entropy": self.entropy.mean(1),
            "distance": self.distance.mean(1),
            "cka": np.concatenate([[np.nan], np.diagonal(self.cka, 1)]),
        }


def _over_pairs(matrices):
    """Averages (L, H, H) over pairs of different heads; nan for a single head."""
    heads = matrices.shape[-1]
    pairs = ~np.eye(heads, dtype=bool)
    return matrices[:, pairs].mean(1) if heads > 1 else np.full(len(matrices), np.nan)


def redundancy(model: keras.Model, images, batch_size: int = 4) -> Redundancy:
    """Measures the redundancy of a model over a set of images.

    The last block is computed for all tokens. Statistics are taken block by block; what is kept is the attention of one block,
    the results of a batch, and for one image a Gram matrix of each block: 8 L N N bytes, 4 MB for T2TViT14 at 224x224, 37 MB at
    384x384.

    Args:
        model: any model of this package, with a grid of 3 tokens or more.
        images: (B, H, W, C), in the range that the model takes.
        batch_size: how many images pass at a time; it does not change the result.

    Raises:
        ValueError: for images that the model does not take, or too small.
    """
    model_parts = split_model(model)
    count = len(model_parts.block_names)
    sums, products = [0.0] * count, np.zeros((count, count))
    for batch in batches(model, images, batch_size):
        places = distances(token_centers(model_parts.config.soft_splits, batch.shape[1:3]))
        if len(places) < 3:
            raise ValueError(f"Expected images of 3 tokens or more; received images of {tuple(batch.shape[1:3])} pixels")
        _, tokens = model_parts.entry(batch, training=False)
        outputs = []
        for i, (weights, output) in enumerate(run_encoder(model_parts, tokens)):
            sums[i] = sums[i] + len(batch) * _statistics(to_numpy(weights), places)
            outputs.append(to_numpy(output))
        for one in zip(*outputs, strict=True):  # image by image
            grams = np.stack([centered_gram(features).ravel() for features in one])
            products += grams @ grams.T
    statistics = np.stack(sums) / len(images)  # (L, 2 H + 2, H)
    heads = statistics.shape[-1]
    cosine, divergence, others = np.split(statistics, [heads, 2 * heads], axis=1)
    return Redundancy(tuple(model_parts.block_names), cosine, divergence, others[:, 0], others[:, 1], cka(products))


def _statistics(weights, distances):
    """Returns cosine (H, H), divergence (H, H), entropy (1, H) and distance (1, H) of attention (B, H, N, N), stacked."""
    rows = entropy(weights).mean((0, 2)), attention_distance(weights, distances)
    return np.concatenate([head_cosine(weights), head_divergence(weights), np.stack(rows)])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One of several models side by side.

    Attributes:
        name: of the model.
        cost: what it costs at the size of its images.
        redundancy: what its blocks do with them.
    """

    name: str
    cost: Cost
    redundancy: Redundancy

    def summary(self) -> dict[str, float]:
        """Returns single figures: parameters, multiply-accumulates, and averages of `Redundancy.by_block` over the blocks."""
        by_block = {name: values[~np.isnan(values)] for name, values in self.redundancy.by_block().items()}
        averages = {name: float(values.mean()) if len(values) else np.nan for name, values in by_block.items()}
        return {"parameters": self.cost.parameters, "multiply_accumulates": self.cost.multiply_accumulates, **averages}


def compare(models: list[keras.Model], images, batch_size: int = 4) -> list[Comparison]:
    """Puts models side by side: cost and redundancy of each.

    Args:
        models: any models of this package.
        images: (B, H, W, C), for all models, or a list of such arrays, one for each model.
        batch_size: how many images pass at a time.

    Returns:
        A `Comparison` for each model, in their order.

    Raises:
        ValueError: as `redundancy`, and if there are not as many arrays as models.
    """
    sets = list(images) if isinstance(images, (list, tuple)) else [images] * len(models)
    if len(sets) != len(models):
        raise ValueError(f"Expected images for each of {len(models)} models, or one array for all; received {len(sets)} arrays")
    return [
        Comparison(model.name, cost(model, np.shape(one)[1:]), redundancy(model, one, batch_size))
        for model, one in zip(models, sets, strict=True)
    ]
