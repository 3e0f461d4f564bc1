"""Decoding encoded images into pixels."""

import tensorflow as tf


def decode(image: tf.Tensor) -> tf.Tensor:
    """Returns the pixels (H, W, 3) of an encoded image or of pixels; those of a JPEG as PIL decodes it."""
    if image.dtype != tf.string:
        return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image

    def other():
        pixels = tf.io.decode_image(image, 3, expand_animations=False)
        is_bmp = tf.strings.substr(image, 0, 2) == "BM"
        return tf.cond(is_bmp, lambda: _with_palette(pixels, image), lambda: pixels)

    return tf.cond(tf.io.is_jpeg(image), lambda: tf.io.decode_jpeg(image, 3, dct_method="INTEGER_ACCURATE"), other)


def _with_palette(pixels, bmp):
    """Puts colors in the place of their numbers, which TensorFlow takes for gray levels, in a BMP of 8 bits."""
    end, header = tf.unstack(tf.io.decode_raw(tf.strings.substr(bmp, 10, 8), "int32"), 2)

    def colored():
        entries = tf.strings.substr(bmp, 14 + header, end - 14 - header)
        palette = tf.reshape(tf.io.decode_raw(entries, "uint8"), (-1, 4))[:, 2::-1]
        return tf.gather(palette, tf.cast(pixels[..., 0], "int32"))

    return tf.cond(tf.strings.substr(bmp, 28, 2) == b"\x08\0", colored, lambda: pixels)
