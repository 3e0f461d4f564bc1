"""How training images are augmented, as plain data. `keras_t2t.data` does it.

Source: section 4.1 of the paper, which adopts the augmentation of DeiT (Touvron et al. 2021, table 9).
"""

import dataclasses

from keras_t2t.recipes.settings import check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are augmented.

    Attributes:
        crop_mode: `"resized"` takes a random crop and resizes it; `"padded"` resizes the image, pads it with zeros and takes a
            random crop of the original size; `"none"` resizes the whole image.
        crop_scale: Minimum and maximum area of a crop as a fraction of the image's area, for `"resized"`.
        crop_ratio: Minimum and maximum aspect ratio (width / height) of a crop, for `"resized"`.
        crop_padding: Padding on each side in pixels, for `"padded"`.
        interpolation: Method of `tf.image.resize`. timm picks `"bilinear"` or `"bicubic"` at random. Bilinear interpolation
            takes half the time.
        flip: Whether to flip half of the images horizontally.
        rand_augment_num_ops: Number of RandAugment operations per image. 0 disables RandAugment.
        rand_augment_magnitude: Mean strength of the operations, from 0 to 10.
        rand_augment_magnitude_std: Standard deviation of the strength.
        random_erase_prob: Fraction of images in which a rectangle is replaced with noise.
        mixup: Alpha of Mixup. 0 disables Mixup.
        cutmix: Alpha of CutMix. 0 disables CutMix.
        mixup_prob: Fraction of batches that are mixed.
        mixup_switch_prob: Fraction of the mixed batches that use CutMix, if both Mixup and CutMix are enabled.
        label_smoothing: Fraction of each target that is spread evenly over all classes.

    Raises:
        ValueError: If a setting is of another type or invalid.
    """

    crop_mode: str = "resized"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 4
    interpolation: str = "bilinear"
    flip: bool = True
    rand_augment_num_ops: int = 2
    rand_augment_magnitude: float = 9.0
    rand_augment_magnitude_std: float = 0.5
    random_erase_prob: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mixup_prob: float = 1.0
    mixup_switch_prob: float = 0.5
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
