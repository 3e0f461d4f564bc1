"""One image as the published accuracies were measured: resized, then cropped from the centre."""

import math
import os

import numpy as np
import tensorflow as tf


def evaluation_image(
    path: str | os.PathLike, size: tuple[int, int] = (224, 224), crop: float = 0.9, interpolation: str = "bicubic"
) -> np.ndarray:
    """Reads an image, resizes it until its shorter side is that of `size` over `crop`, and crops the centre.

    Resizing is antialiased, as that of PIL.

    Args:
        path: a JPEG, PNG, BMP or GIF file (of an animation, the first frame); grey images become RGB.
        size: (height, width) of the result.
        crop: side of the crop over the side of the resized image, in (0, 1].
        interpolation: a method of `tf.image.resize`.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: if the file is no image.
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"Cannot read {path}: expected a JPEG, PNG, BMP or GIF image") from error
    scale = max(math.floor(side / crop) / old for side, old in zip(size, image.shape[:2], strict=True))
    resized = [max(side, round(old * scale)) for side, old in zip(size, image.shape[:2], strict=True)]
    image = tf.image.resize(image, resized, interpolation, antialias=True)
    top, left = ((new - side) // 2 for new, side in zip(resized, size, strict=True))
    image = image[top : top + size[0], left : left + size[1]]
    return np.asarray(tf.cast(tf.clip_by_value(tf.round(image), 0, 255), "uint8"))
