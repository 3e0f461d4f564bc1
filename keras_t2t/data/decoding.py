"""Decoding image files into pixels: with TensorFlow alone, which exported graphs need, or with the help of Pillow."""

import tensorflow as tf

from keras_t2t.data.orientation import as_one_operation, jpeg_orientation, png_orientation, upright
from keras_t2t.data.pillow import decode_with_pillow, pillow_is_installed

ANIMATION, EXIF = 0x02, 0x08  # flags of WebP

without_autograph = tf.autograph.experimental.do_not_convert
"""Decorates functions of datasets. TensorFlow would take seconds to convert their `if` and `for`, which depend on no tensor."""


def decode(image: tf.Tensor) -> tf.Tensor:
    """Decodes an image into RGB with TensorFlow alone. JPEGs are decoded in the same way as in Pillow.

    The EXIF orientation of JPEG and PNG files is obeyed. Transparent PNG and WebP images are laid over white.

    Args:
        image: The bytes of a JPEG, PNG, BMP, GIF or WebP file, or pixels of shape `(H, W, 3)` or `(H, W, 1)`. Only the first
            frame of a GIF is decoded. Animated WebP files are not supported.

    Returns:
        Pixels of shape `(H, W, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: If the file cannot be decoded, when the operation runs.
    """
    return _decode(image, _decode_with_tensorflow)


def decode_file(image: tf.Tensor) -> tf.Tensor:
    """Decodes an image into RGB with TensorFlow or, if that cannot decode all of it, with Pillow.

    Pillow must be installed to read more than `decode` does: TIFF, AVIF, animated WebP and other variants, transparent GIFs,
    the EXIF orientation of WebP files, and, with pillow-heif, HEIC. The operation calls Python, so graphs that contain it
    cannot be saved.

    Args:
        image: The bytes of an image file, or pixels of shape `(H, W, 3)` or `(H, W, 1)`. Only the first frame of an animation
            is decoded.

    Returns:
        Pixels of shape `(H, W, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: If the file cannot be decoded, when the operation runs.
    """
    if not pillow_is_installed():
        return decode(image)
    if image.dtype != tf.string or tf.executing_eagerly():
        return _decode(image, _decode_with_tensorflow_or_pillow)
    return _decode_in_graphs(image)


def _decode_with_tensorflow_or_pillow(image):
    return tf.cond(_suits_tensorflow(image), lambda: _decode_with_tensorflow(image), lambda: decode_with_pillow(image))


@tf.function(input_signature=[tf.TensorSpec((), "string")], autograph=False)  # traced once for all datasets
def _decode_in_graphs(image):
    return _decode(image, _decode_with_tensorflow_or_pillow)


def _decode(image, decode_other):
    if image.dtype != tf.string:
        return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image

    def decode_jpeg():
        return upright(tf.io.decode_jpeg(image, 3, dct_method="INTEGER_ACCURATE"), jpeg_orientation(image))

    return tf.cond(tf.io.is_jpeg(image), decode_jpeg, lambda: as_one_operation(decode_other, image))


def _suits_tensorflow(image):
    """Returns whether TensorFlow decodes a file that is not a JPEG in full: PNG, common kinds of BMP, and plain WebP."""
    header = tf.io.decode_raw(image, "uint8", fixed_length=34)
    is_common_bmp = _is_bmp(image) & (header[28] >= 8) & tf.reduce_all(header[30:] == 0)  # bits per pixel; no compression
    is_plain_webp = _is_webp(image) & ~_has_webp_flag(image, ANIMATION | EXIF) & hasattr(tf.io, "decode_webp")
    return _is_png(image) | is_common_bmp | is_plain_webp


def _decode_with_tensorflow(image):
    def decode_png():
        bit_depth = tf.cast(tf.io.decode_raw(image, "uint8", fixed_length=25)[24], "int32")
        opaque = 2 ** tf.minimum(bit_depth, 8) - 1  # where a file has no alpha, TensorFlow uses this
        return upright(_over_white(tf.io.decode_png(image, 4), tf.cast(opaque, "uint8")), png_orientation(image))

    def decode_rest():
        pixels = tf.io.decode_image(image, 3, expand_animations=False)
        return tf.cond(_is_bmp(image), lambda: _apply_palette(pixels, image), lambda: pixels)

    return tf.case([(_is_png(image), decode_png), (_is_webp(image), lambda: _decode_webp(image))], decode_rest)


def _decode_webp(image):
    is_still = tf.debugging.Assert(~_has_webp_flag(image, ANIMATION), ["Expected a WebP image; received an animation"])
    with tf.control_dependencies([is_still]):  # TensorFlow 2.21 writes past the end of its buffer for opaque animations
        pixels = tf.io.decode_image(tf.identity(image), 0, expand_animations=False)
    return _over_white(tf.ensure_shape(pixels, (None, None, None)))


def _over_white(pixels, opaque=255):
    """Lays RGBA pixels over white, with exact rounding. RGB pixels, and those with an alpha of `opaque`, stay as they are."""

    def blended():
        color, alpha = tf.cast(pixels[..., :3], "int32"), tf.cast(pixels[..., 3:], "int32")
        return tf.cast((color * alpha + 255 * (255 - alpha) + 127) // 255, "uint8")

    is_opaque = tf.reduce_all(pixels[..., 3:] == opaque)
    return tf.ensure_shape(tf.cond(is_opaque, lambda: pixels[..., :3], blended), (None, None, 3))


def _apply_palette(pixels, bmp):
    """Replaces the color indices of an 8-bit BMP, which TensorFlow decodes as gray levels, with their colors."""
    end, header = tf.unstack(tf.io.decode_raw(tf.strings.substr(bmp, 10, 8), "int32"), 2)

    def colored():
        entries = tf.strings.substr(bmp, 14 + header, end - 14 - header)
        palette = tf.reshape(tf.io.decode_raw(entries, "uint8"), (-1, 4))[:, 2::-1]
        return tf.gather(palette, tf.cast(pixels[..., 0], "int32"))

    return tf.cond(tf.strings.substr(bmp, 28, 2) == b"\x08\0", colored, lambda: pixels)


def _is_png(image):
    return tf.strings.substr(image, 0, 8) == b"\x89PNG\r\n\x1a\n"


def _is_bmp(image):
    return tf.strings.substr(image, 0, 2) == b"BM"


def _is_webp(image):
    return tf.strings.regex_full_match(tf.strings.substr(image, 0, 12), r"RIFF\C{4}WEBP")


def _has_webp_flag(image, flag):
    """Returns whether a WebP file has one of these flags, which only its extended format has."""
    header = tf.io.decode_raw(image, "uint8", fixed_length=21)
    is_extended = tf.strings.regex_full_match(tf.strings.substr(image, 0, 16), r"RIFF\C{4}WEBPVP8X")
    return is_extended & (header[20] & flag != 0)
