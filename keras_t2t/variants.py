"""The named models, and what is known about them: plain frozen data that needs no TensorFlow.

Sources: Yuan et al., "Tokens-to-Token ViT", ICCV 2021 (https://arxiv.org/abs/2101.11986), table 1 (the models) and section 3.2
(the design studies); `models/t2t_vit*.py` and `models/vit.py` of the reference implementation
(https://github.com/yitu-opensource/T2T-ViT).
"""

import dataclasses
from typing import Any

from keras_t2t.configs import T2TConfig
from keras_t2t.errors import did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A named model and its published properties.

    Args:
        constructor: Name of the constructor in `keras_t2t`.
        config: Configuration of the model.
        image_size: Height and width of the images in pixels.
        crop_fraction: Side length of the center crop in evaluation, as a fraction of the resized image.
        authors_gmacs: Billions of multiply-accumulates for one 224x224 image, as published by the authors, or `None`.
        openmmlab_gmacs: Billions of multiply-accumulates for one 224x224 image, as published by OpenMMLab, or `None`.
    """

    constructor: str
    config: T2TConfig
    image_size: int = 224
    crop_fraction: float = 0.9
    authors_gmacs: float | None = None
    openmmlab_gmacs: float | None = None


def _lite(depth: int) -> T2TConfig:
    return T2TConfig(embed_dim=256, depth=depth, num_heads=4, mlp_ratio=2.0)


_14 = T2TConfig(embed_dim=384, depth=14, num_heads=6)
_19 = T2TConfig(embed_dim=448, depth=19, num_heads=7)
_24 = T2TConfig(embed_dim=512, depth=24, num_heads=8)


def _with_transformer(config: T2TConfig) -> T2TConfig:
    return dataclasses.replace(config, token_attention="transformer")


def _small(**changes: Any) -> T2TConfig:
    """Returns a configuration for 32x32 images with 8x8 tokens, by default T2T-ViT with performers."""
    values = {"soft_splits": ((3, 2, 1), (3, 2, 1)), "embed_dim": 128, "depth": 6, "num_heads": 4, "mlp_ratio": 2.0}
    return T2TConfig(**{**values, "learned_positions": True, **changes})


VARIANTS: dict[str, Variant] = {
    "t2t_vit_7": Variant(constructor="T2TViT7", config=_lite(7), authors_gmacs=1.1),
    "t2t_vit_10": Variant(constructor="T2TViT10", config=_lite(10), authors_gmacs=1.5),
    "t2t_vit_12": Variant(constructor="T2TViT12", config=_lite(12), authors_gmacs=1.8),
    "t2t_vit_14": Variant(constructor="T2TViT14", config=_14, authors_gmacs=4.8),
    "t2t_vit_19": Variant(constructor="T2TViT19", config=_19, authors_gmacs=8.5),
    "t2t_vit_24": Variant(constructor="T2TViT24", config=_24, authors_gmacs=13.8),
    "t2t_vit_t_14": Variant(constructor="T2TViTt14", config=_with_transformer(_14), authors_gmacs=6.1, openmmlab_gmacs=4.34),
    "t2t_vit_t_19": Variant(constructor="T2TViTt19", config=_with_transformer(_19), authors_gmacs=9.8, openmmlab_gmacs=7.80),
    "t2t_vit_t_24": Variant(constructor="T2TViTt24", config=_with_transformer(_24), authors_gmacs=15.0, openmmlab_gmacs=12.69),
    "t2t_vit_14_resnext": Variant(constructor="T2TViT14ResNeXt", config=dataclasses.replace(_14, num_heads=32)),
    "t2t_vit_14_wide": Variant(constructor="T2TViT14Wide", config=T2TConfig(embed_dim=768, depth=4, num_heads=12)),
    "t2t_vit_14_se": Variant(constructor="T2TViT14SE", config=dataclasses.replace(_14, block="squeeze_excite")),
    "t2t_vit_16_ghost": Variant(constructor="T2TViT16Ghost", config=dataclasses.replace(_14, depth=16, block="ghost")),
    "t2t_vit_dense": Variant(
        constructor="T2TViTDense",
        config=T2TConfig(embed_dim=128, depth=(3, 6, 6, 4), num_heads=8, mlp_ratio=2.0, block="dense", growth=64),
    ),
    "vit_small_16": Variant(
        constructor="ViTSmall16",
        config=T2TConfig(
            token_attention="convolution",
            soft_splits=((16, 16, 0),),
            depth=12,
            mlp_ratio=4.0,
            qkv_bias=True,
            learned_positions=True,
            norm_epsilon=1e-6,
        ),
    ),
    "t2t_vit_tiny_32": Variant(
        constructor="T2TViTTiny32",
        config=_small(depth=5),
        image_size=32,
        crop_fraction=1.0,
    ),
}
"""The published variants by name, the plain ViT-S/16 of the reference implementation, and a variant for 32x32 images.

The authors' counts are from the tables of their README (https://github.com/yitu-opensource/T2T-ViT, section 2), and OpenMMLab's
from the README in MMPretrain (https://github.com/open-mmlab/mmpretrain, configs/t2t_vit).
"""


_HARD_PATCHES: dict[str, Any] = {"token_attention": "convolution", "soft_splits": ((4, 4, 0),)}
_WIDE: dict[str, Any] = {"embed_dim": 224, "depth": 2, "num_heads": 7}

REFERENCE_NAMES = ("resnet_56", "mobilenet_v2")
"""The convolutional networks that a study can compare with; see `keras_t2t.studies.references`."""

STUDY_CONFIGS: dict[str, T2TConfig] = {
    "t2t_performer": _small(),
    "t2t_transformer": _small(token_attention="transformer"),
    "convolution_tokens": _small(token_attention="convolution", mlp_ratio=2.1),
    "hard_patches": _small(**_HARD_PATCHES, depth=7, mlp_ratio=1.81),
    "t2t_performer_wide": _small(**_WIDE, mlp_ratio=1.625),
    "hard_patches_wide": _small(**_HARD_PATCHES, **_WIDE, mlp_ratio=2.31),
    "t2t_dense": _small(block="dense", embed_dim=96, depth=(3, 4, 3), growth=16),
    "t2t_squeeze_excite": _small(block="squeeze_excite", mlp_ratio=1.94),
    "t2t_ghost": _small(block="ghost", depth=10, mlp_ratio=1.69),
    "t2t_resnext": _small(num_heads=32),
}
"""Configurations for 32x32 images that test the claims of the paper. With 10 classes, each has 0.9 million parameters."""

_STUDY_VARIANTS = {
    name: Variant(constructor="T2TViT", config=config, image_size=32, crop_fraction=1.0)
    for name, config in STUDY_CONFIGS.items()
}


def variant_called(name: str) -> str | None:
    """Returns the key in `VARIANTS` of a variant called by that key or by its constructor, or `None` if there is none."""
    by_constructor = {variant.constructor: key for key, variant in VARIANTS.items()}
    return name if name in VARIANTS else by_constructor.get(name)


def did_you_mean_variant(name: object) -> str:
    """Returns the end of an error message about a mistyped variant, like `keras_t2t.errors.did_you_mean`."""
    return did_you_mean(name, [*VARIANTS, *(variant.constructor for variant in VARIANTS.values())])


def find_variant(name: str) -> Variant:
    """Returns the variant called `name`, which may also be the name of its constructor or a key of `STUDY_CONFIGS`.

    Raises:
        ValueError: If there is no such variant. The message lists all names.
    """
    is_name = isinstance(name, str)
    if is_name and name in _STUDY_VARIANTS:
        return _STUDY_VARIANTS[name]
    variant = variant_called(name) if is_name else None
    if variant is None:
        names = ", ".join(VARIANTS)
        raise ValueError(f"Invalid variant: expected one of {names}; received: {name!r}{did_you_mean_variant(name)}")
    return VARIANTS[variant]


def variant_of(config: T2TConfig) -> str | None:
    """Returns the name of the variant with this configuration, ignoring dropout rates, or `None` if there is none.

    The names are those that `find_variant` takes.
    """
    default_rates: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(T2TConfig) if field.name.endswith("_rate")
    }
    config = dataclasses.replace(config, **default_rates)
    return next((name for name, variant in {**VARIANTS, **_STUDY_VARIANTS}.items() if variant.config == config), None)
