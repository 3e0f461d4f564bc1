"""The augmentation of `keras_t2t.data` in JAX, so that it can run on an accelerator: crops, flips, RandAugment and CutMix.

All images are float32 with values in [0, 255].
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

GRAY = jnp.array([124.0, 116.0, 104.0])
LUMINANCE = jnp.array([0.299, 0.587, 0.114])


def to_uint8(values):
    return jnp.floor(jnp.clip(values, 0, 255))


def blend(image, other, factor):
    return to_uint8(other + factor * (image - other))


def warp(image, matrix):
    """Samples an image `(H, W, 3)` at affine coordinates, bilinearly. Everything outside of the image is gray.

    Args:
        image: The image.
        matrix: Matrix `(2, 3)` from (y, x, 1) in the result to (y, x) in the image.
    """
    height, width, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(float(height)), jnp.arange(float(width)), indexing="ij")
    rows, columns = (a * y + b * x + c for a, b, c in matrix)
    rows, columns = jnp.clip(rows, -1, height) + 1, jnp.clip(columns, -1, width) + 1
    padded = jnp.pad(image - GRAY, [(1, 2), (1, 2), (0, 0)])
    top, left = jnp.floor(rows).astype(int), jnp.floor(columns).astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    return to_uint8(upper * (1 - down) + lower * down + GRAY)


def equalize(image):
    """Equalizes the histogram of each channel, as Pillow does."""
    values = image.reshape(-1, 3).T.astype(int)  # (3, H * W)
    counts = jnp.zeros((3, 256), int).at[jnp.arange(3)[:, None], values].add(1)
    darker = jnp.cumsum(counts, 1) - counts
    last = jnp.take_along_axis(counts, jnp.max(values, 1, keepdims=True), 1)
    step = (values.shape[1] - last) // 255
    table = (step // 2 + darker) // jnp.maximum(step, 1)
    table = jnp.where(step > 0, jnp.minimum(table, 255), jnp.arange(256))
    return jnp.take_along_axis(table, values, 1).T.reshape(image.shape).astype(float)


def sharpened(image, factor):
    window = sum(jnp.roll(image, (dy, dx), (0, 1)) * (5 if dy == dx == 0 else 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    height, width, _ = image.shape
    inner = np.zeros((height, width, 1), bool)
    inner[1:-1, 1:-1] = True
    return blend(image, jnp.where(inner, window / 13, image), factor)


def affine(name, signed, height, width):
    """Returns the matrix `(2, 3)` of a geometric operation of RandAugment."""
    zero, one = jnp.zeros(()), jnp.ones(())
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    cos, sin = jnp.cos(signed * math.radians(30)), jnp.sin(signed * math.radians(30))
    rotation = [
        [cos, sin, center_y - cos * center_y - sin * center_x],
        [-sin, cos, center_x + sin * center_y - cos * center_x],
    ]
    matrices = {
        "rotate": rotation,
        "shear_x": [[one, zero, zero], [0.3 * signed, one, zero]],
        "shear_y": [[one, 0.3 * signed, zero], [zero, one, zero]],
        "translate_x": [[one, zero, zero], [zero, one, 0.45 * signed * width]],
        "translate_y": [[one, zero, 0.45 * signed * height], [zero, one, zero]],
    }
    return jnp.array(matrices[name])


GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def rand_augment_operation(key, image, magnitude):
    """Applies one of the 15 operations of `keras_t2t.data.randaugment` with a probability of 1/2."""
    keys = jax.random.split(key, 4)
    level = jnp.clip(magnitude + 0.5 * jax.random.normal(keys[0]), 0, 10) / 10
    signed = jnp.where(jax.random.bernoulli(keys[1]), level, -level)
    index = jax.random.randint(keys[2], (), 0, 15)
    height, width, _ = image.shape
    low, high = image.min((0, 1)), image.max((0, 1))
    stretched = jnp.where(high > low, to_uint8((image - low) * (255 / jnp.maximum(high - low, 1))), image)
    gray = (image @ LUMINANCE)[..., None]
    bits = 2.0 ** (4 + jnp.floor(4 * level))
    matrices = jnp.stack([affine(name, signed, height, width) for name in GEOMETRIC])
    results = [
        stretched,
        equalize(image),
        255 - image,
        jnp.floor(image / bits) * bits,
        jnp.where(image >= 256 - jnp.floor(256 * level), 255 - image, image),
        jnp.where(image < 128, image + jnp.floor(110 * level), image),
        blend(image, gray, 1 + 0.9 * signed),
        blend(image, gray.mean(), 1 + 0.9 * signed),
        blend(image, 0.0, 1 + 0.9 * signed),
        sharpened(image, 1 + 0.9 * signed),
        warp(image, matrices[jnp.clip(index - 10, 0, 4)]),
    ]
    result = jnp.select([index == i for i in range(10)], results[:10], results[10])
    return jnp.where(jax.random.bernoulli(keys[3]), result, image)


def augment(key, image, settings):
    """Crops, flips and augments an image `(H, W, 3)` with values in [0, 255]."""
    keys = jax.random.split(key, 3 + settings["rand_augment_num_ops"])
    padding = settings["crop_padding"]
    padded = jnp.pad(image.astype(jnp.float32), [(padding, padding), (padding, padding), (0, 0)])
    offset = jax.random.randint(keys[0], (2,), 0, 2 * padding + 1)
    image = jax.lax.dynamic_slice(padded, (*offset, 0), image.shape)
    image = jnp.where(jax.random.bernoulli(keys[1]), image[:, ::-1], image)
    for operation_key in keys[3:]:
        image = jax.lax.optimization_barrier(image)  # without it, XLA computes the image again for every pixel it reads
        image = rand_augment_operation(operation_key, image, settings["rand_augment_magnitude"])
    return image


def cutmix(key, images, targets, settings):
    """Mixes batches with CutMix, with a probability of `mixup_prob`."""
    keys = jax.random.split(key, 4)
    height, width = images.shape[1:3]
    share = jax.random.beta(keys[0], settings["cutmix"], settings["cutmix"])  # fraction that stays
    side = jnp.sqrt(1 - share)
    center = jax.random.uniform(keys[1], (2,)) * jnp.array([height, width])
    low = jnp.clip(jnp.floor(center - side * jnp.array([height, width]) / 2), 0)
    high = jnp.minimum(jnp.floor(center + side * jnp.array([height, width]) / 2), jnp.array([height, width]))
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
    inside = (rows >= low[0]) & (rows < high[0]) & (columns >= low[1]) & (columns < high[1])
    inside &= jax.random.bernoulli(keys[2], settings["mixup_prob"])
    share = 1 - inside.mean()
    return jnp.where(inside[..., None], images[::-1], images), share * targets + (1 - share) * targets[::-1]
