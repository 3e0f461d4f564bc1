"""Which of the published operation counts is right: each beside our own count of what it counts.

The authors' are in the tables of their README (https://github.com/yitu-opensource/T2T-ViT, section 2), OpenMMLab's in that of
MMPretrain (https://github.com/open-mmlab/mmpretrain, configs/t2t_vit), all in G for one 224x224 image.
"""

from typing import NamedTuple

from keras_t2t.analysis.macs import matrix_products
from keras_t2t.configs import T2TConfig, find_variant, token_grid


class Reconciliation(NamedTuple):
    """A variant's published counts and ours, in multiply-accumulates for one 224x224 image, full pass.

    `authors` and `openmmlab` are None where nothing was published. `products` counts all matrix products, as the authors do;
    `weights_and_norms` leaves out those of attention and counts two for each number that a LayerNorm returns, as OpenMMLab's
    figures turn out to do; `class_token` counts all products of a classifier of this package, whose last block computes only
    what the class token needs.
    """

    variant: str
    authors: float | None
    openmmlab: float | None
    products: int
    weights_and_norms: int
    class_token: int


def reconcile(variant: str) -> Reconciliation:
    """Returns the published counts of a variant beside our own.

    Raises:
        ValueError: if there is no such variant.
    """
    known = find_variant(variant)
    full, token = (
        [product for stage in matrix_products(known.config, class_token_only=only).values() for product in stage]
        for only in (False, True)
    )
    return Reconciliation(
        variant,
        *(count and count * 1e9 for count in (known.authors_gmacs, known.openmmlab_gmacs)),
        sum(product.multiply_accumulates for product in full),
        sum(product.multiply_accumulates for product in full if not product.attention) + 2 * _normed(known.config),
        sum(product.multiply_accumulates for product in token),
    )


def _normed(config: T2TConfig, image_size=(224, 224), channels=3) -> int:
    """Counts the numbers that the LayerNorms return for one image."""
    count, sizes = 0, image_size
    for split in config.soft_splits[:-1]:
        sizes = token_grid((split,), *sizes)
        if config.token_attention != "convolution":
            count += sizes[0] * sizes[1] * (split[0] ** 2 * channels + config.token_dim)  # before attention, before the MLP
        channels = config.token_dim
    rows, columns = token_grid(config.soft_splits, *image_size)
    return count + (1 + rows * columns) * (2 * sum(config.block_widths) + config.feature_dim)
