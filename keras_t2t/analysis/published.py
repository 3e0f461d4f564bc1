"""Published multiply-accumulates next to our own counts, to show what each of them includes.

The authors' counts are from the tables in section 2 of their README (https://github.com/yitu-opensource/T2T-ViT). OpenMMLab's
counts are from MMPretrain (https://github.com/open-mmlab/mmpretrain, README of configs/t2t_vit). All are for one 224x224 image.
"""

from typing import NamedTuple

from keras_t2t.analysis.macs import matrix_products
from keras_t2t.configs import T2TConfig, token_grid
from keras_t2t.variants import find_variant


class Reconciliation(NamedTuple):
    """Published multiply-accumulates of a variant and our own counts, for a full forward pass of one 224x224 image.

    Attributes:
        variant: Name of the variant.
        authors: Count published by the authors, or `None`.
        openmmlab: Count published by OpenMMLab, or `None`.
        products: Our count of all matrix products, which is what the authors count.
        weights_and_norms: Our count of matrix products, excluding those of attention, plus two for each output element of a
            LayerNorm. This reproduces the counts of OpenMMLab.
        class_token: Our count of all matrix products of a classifier of this package. Its last block only computes the class
            token.
    """

    variant: str
    authors: float | None
    openmmlab: float | None
    products: int
    weights_and_norms: int
    class_token: int


def reconcile(variant: str) -> Reconciliation:
    """Returns the published counts of a variant next to our own.

    Args:
        variant: Name of a variant, such as `"t2t_vit_14"`.

    Returns:
        The `Reconciliation` of the variant.

    Raises:
        ValueError: If there is no such variant.

    Example:

    >>> counts = keras_t2t.analysis.reconcile("t2t_vit_t_14")
    >>> counts.authors, counts.products
    (6100000000.0, 6088721920)
    """
    known = find_variant(variant)
    full_pass, classifier = (
        [product for stage in matrix_products(known.config, class_token_only=only).values() for product in stage]
        for only in (False, True)
    )
    weight_macs = sum(product.multiply_accumulates for product in full_pass if not product.attention)
    return Reconciliation(
        variant,
        authors=known.authors_gmacs and known.authors_gmacs * 1e9,
        openmmlab=known.openmmlab_gmacs and known.openmmlab_gmacs * 1e9,
        products=sum(product.multiply_accumulates for product in full_pass),
        weights_and_norms=weight_macs + 2 * _norm_outputs(known.config),
        class_token=sum(product.multiply_accumulates for product in classifier),
    )


def _norm_outputs(config: T2TConfig, image_size: tuple[int, int] = (224, 224), channels: int = 3) -> int:
    """Counts the output elements of all LayerNorms for one image."""
    rows, columns = image_size
    count = 0
    for split in config.soft_splits[:-1]:
        rows, columns = token_grid((split,), rows, columns)
        if config.token_attention != "convolution":
            count += rows * columns * (split[0] ** 2 * channels + config.token_dim)  # before the attention and before the MLP
        channels = config.token_dim
    rows, columns = token_grid(config.soft_splits, *image_size)
    return count + (1 + rows * columns) * (2 * sum(config.block_widths) + config.feature_dim)
