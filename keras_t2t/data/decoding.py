"""Decoding image files into pixels."""

import tensorflow as tf


def decode(image: tf.Tensor) -> tf.Tensor:
    """Decodes an image into RGB. JPEGs are decoded in the same way as in Pillow.

    Args:
        image: The bytes of an image file, or pixels of shape `(H, W, 3)` or `(H, W, 1)`.

    Returns:
        Pixels of shape `(H, W, 3)`.
    """
    if image.dtype != tf.string:
        return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image

    def decode_other():
        pixels = tf.io.decode_image(image, 3, expand_animations=False)
        is_bmp = tf.strings.substr(image, 0, 2) == "BM"
        return tf.cond(is_bmp, lambda: _apply_palette(pixels, image), lambda: pixels)

    return tf.cond(tf.io.is_jpeg(image), lambda: tf.io.decode_jpeg(image, 3, dct_method="INTEGER_ACCURATE"), decode_other)


def _apply_palette(pixels, bmp):
    """Replaces the color indices of an 8-bit BMP, which TensorFlow decodes as gray levels, with their colors."""
    end, header = tf.unstack(tf.io.decode_raw(tf.strings.substr(bmp, 10, 8), "int32"), 2)

    def colored():
        entries = tf.strings.substr(bmp, 14 + header, end - 14 - header)
        palette = tf.reshape(tf.io.decode_raw(entries, "uint8"), (-1, 4))[:, 2::-1]
        return tf.gather(palette, tf.cast(pixels[..., 0], "int32"))

    return tf.cond(tf.strings.substr(bmp, 28, 2) == b"\x08\0", colored, lambda: pixels)
