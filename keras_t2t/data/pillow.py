"""Decoding image files with Pillow, which reads what TensorFlow cannot: TIFF, AVIF, animated WebP, and others."""

import functools
import importlib.util
import io

import numpy as np
import tensorflow as tf


@functools.cache
def pillow_is_installed() -> bool:
    """Returns whether Pillow can be used."""
    return importlib.util.find_spec("PIL") is not None


@functools.cache
def heif_is_installed() -> bool:
    """Returns whether Pillow can read HEIC files, and enables it to do so."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


@tf.function(input_signature=[tf.TensorSpec((), "string")], autograph=False)  # raises the same errors outside of graphs
def decode_with_pillow(image: tf.Tensor) -> tf.Tensor:
    """Decodes an image with Pillow, called by an operation.

    Args:
        image: The bytes of an image file, a scalar string.

    Returns:
        Uint8 tensor of shape `(H, W, 3)`; see `pillow_pixels`.

    Raises:
        tf.errors.InvalidArgumentError: If Pillow cannot read the image, when the operation runs.
    """
    pixels = tf.numpy_function(pillow_pixels, [image], "uint8", stateful=False)
    return tf.ensure_shape(pixels, (None, None, 3))


def pillow_pixels(data: bytes) -> np.ndarray:
    """Decodes an image into RGB, upright, over white. Levels of 16 bits lose their lower 8. Only the first frame is read.

    Args:
        data: The bytes of an image file.

    Returns:
        Uint8 array of shape `(H, W, 3)`.

    Raises:
        ValueError: If Pillow cannot read the image.
    """
    import PIL.Image
    import PIL.ImageOps

    heif_is_installed()
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            image = PIL.ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", rgba.size, "white"), rgba)
    except Exception as error:  # many types, and other ones for each format
        raise ValueError(str(error)) from error
    if image.mode in ("I", "F"):
        raise ValueError(f"Expected 8 or 16 bits per channel; received: 32 bits, mode {image.mode}")
    if image.mode.startswith("I;16"):  # Pillow's own conversion would clip instead
        return np.repeat((np.asarray(image) >> 8).astype("uint8")[..., None], 3, -1)
    return np.asarray(image.convert("RGB"))
