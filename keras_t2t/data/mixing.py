"""Mixing the images of a batch: Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

import tensorflow as tf

from keras_t2t.data.augment import Augmentation, compiled, inside


def smooth(labels: tf.Tensor, classes: int, smoothing: float) -> tf.Tensor:
    """Returns targets (B, classes) for labels (B,): `smoothing` is spread over all classes, the rest goes to the right one."""
    return tf.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mix(images: tf.Tensor, targets: tf.Tensor, augmentation: Augmentation, seed: tf.Tensor):
    """Mixes every image of a batch with that at the same place from the end, all in one proportion.

    Args:
        images: (B, H, W, C), of any dtype.
        targets: (B, classes).
        augmentation: `mixup`, `cutmix`, `mixup_prob` and `mixup_switch_prob` are used.
        seed: (2,).

    Returns:
        Mixed images, float32, and targets.
    """

    def unmixed():
        return tf.cast(images, "float32"), targets

    if augmentation.mixup_prob == 0 or augmentation.mixup == augmentation.cutmix == 0:
        return unmixed()
    seeds = tf.random.experimental.stateless_split(seed, 3)
    chance, switch = tf.unstack(tf.random.stateless_uniform((2,), seeds[0]))
    cut_rate = augmentation.mixup_switch_prob if augmentation.mixup and augmentation.cutmix else float(augmentation.cutmix > 0)

    def mixed():
        return tf.cond(
            switch < cut_rate,
            lambda: cutmix(images, targets, beta(augmentation.cutmix or 1.0, seeds[1]), seeds[2]),
            lambda: mixup(images, targets, beta(augmentation.mixup or 1.0, seeds[1])),
        )

    return tf.cond(chance < augmentation.mixup_prob, mixed, unmixed)


def mixup(images, targets, share):
    """Returns `share` of each image and target plus the rest of its partner."""
    return blend(share, images), blend(share, targets)


def cutmix(images, targets, share, seed):
    """Puts a rectangle of its partner, with 1 - `share` of the area where it lies within, into each image.

    The targets are shared in proportion to the areas.
    """
    height, width = images.shape[1:3]
    center = tf.random.stateless_uniform((2,), seed) * [float(height), float(width)]
    half = tf.sqrt(1 - share) * [height / 2, width / 2]
    top, left = tf.unstack(tf.maximum(tf.round(center - half), 0.0))
    bottom, right = tf.unstack(tf.minimum(tf.round(center + half), [float(height), float(width)]))
    cut = tf.cast(inside(height, width, top, left, bottom, right), "float32")
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return blend(1 - cut, images), blend(share, targets)


@compiled
def blend(share, values):
    """Returns `share` of each value of a batch plus the rest of its partner, float32."""
    return share * tf.cast(values, "float32") + (1 - share) * tf.cast(tf.reverse(values, [0]), "float32")


def beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws from the beta distribution with both parameters `alpha`."""
    a, b = tf.unstack(tf.random.stateless_gamma((2,), seed, alpha))
    return a / tf.maximum(a + b, 1e-12)
