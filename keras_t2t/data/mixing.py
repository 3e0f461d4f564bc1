"""Mixing the images of a batch: Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

Every image is mixed with its partner, the image at the same position counted from the end of the batch. `lam` is the fraction
of the image in the mix. The rest comes from its partner.
"""

import tensorflow as tf

from keras_t2t.data.augment import compiled, rectangle_mask
from keras_t2t.recipes import Augmentation


def smooth(labels: tf.Tensor, classes: int, smoothing: float) -> tf.Tensor:
    """Returns smoothed targets.

    Args:
        labels: Class indices of shape `(B,)`.
        classes: Number of classes.
        smoothing: Fraction of each target that is spread evenly over all classes. The rest goes to the correct class.

    Returns:
        Float32 tensor of shape `(B, classes)`.
    """
    return tf.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mix(images: tf.Tensor, targets: tf.Tensor, augmentation: Augmentation, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies Mixup, CutMix or neither to a batch, with the same `lam` for all images.

    Args:
        images: Tensor of shape `(B, H, W, C)`, of any dtype.
        targets: Tensor of shape `(B, classes)`.
        augmentation: Settings for `mixup`, `cutmix`, `mixup_prob` and `mixup_switch_prob`.
        seed: Integer tensor of shape `(2,)`.

    Returns:
        The images in float32, and the targets. Their shapes do not change.
    """

    def unmixed():
        return tf.cast(images, "float32"), targets

    if augmentation.mixup_prob == 0 or augmentation.mixup == augmentation.cutmix == 0:
        return unmixed()
    seeds = tf.random.experimental.stateless_split(seed, 3)
    mix_draw, cutmix_draw = tf.unstack(tf.random.stateless_uniform((2,), seeds[0]))
    cutmix_prob = (
        augmentation.mixup_switch_prob if augmentation.mixup and augmentation.cutmix else float(augmentation.cutmix > 0)
    )

    def mixed():
        return tf.cond(
            cutmix_draw < cutmix_prob,
            lambda: cutmix(images, targets, beta(augmentation.cutmix or 1.0, seeds[1]), seeds[2]),
            lambda: mixup(images, targets, beta(augmentation.mixup or 1.0, seeds[1])),
        )

    return tf.cond(mix_draw < augmentation.mixup_prob, mixed, unmixed)


def mixup(images: tf.Tensor, targets: tf.Tensor, lam: tf.Tensor | float) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each image and its target with those of its partner."""
    return blend(images, lam), blend(targets, lam)


def cutmix(images: tf.Tensor, targets: tf.Tensor, lam: tf.Tensor | float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a rectangle from its partner into each image.

    The rectangle covers a fraction `1 - lam` of the image, or less if it extends beyond the border. The targets are blended in
    proportion to the areas.
    """
    height, width = images.shape[1:3]
    center = tf.random.stateless_uniform((2,), seed) * [float(height), float(width)]
    half = tf.sqrt(1 - lam) * [height / 2, width / 2]
    top, left = tf.unstack(tf.maximum(tf.round(center - half), 0.0))
    bottom, right = tf.unstack(tf.minimum(tf.round(center + half), [float(height), float(width)]))
    pasted = tf.cast(rectangle_mask(height, width, top, left, bottom, right), "float32")
    lam = 1 - (bottom - top) * (right - left) / (height * width)
    return blend(images, 1 - pasted), blend(targets, lam)


@compiled
def blend(values: tf.Tensor, lam: tf.Tensor | float) -> tf.Tensor:
    """Returns `lam * value + (1 - lam) * partner` for each value in a batch, in float32."""
    return lam * tf.cast(values, "float32") + (1 - lam) * tf.cast(tf.reverse(values, [0]), "float32")


def beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws a number from the distribution `Beta(alpha, alpha)`."""
    a, b = tf.unstack(tf.random.stateless_gamma((2,), seed, alpha))
    return a / tf.maximum(a + b, 1e-12)
