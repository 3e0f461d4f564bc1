"""The EXIF orientation of image files, read and obeyed by TensorFlow operations, so that exported graphs obey it, too.

Sources: Exif 2.32 (CIPA DC-008), TIFF 6.0 for its directories, and the PNG specification for the chunk `eXIf`.
"""

import functools
from typing import Any

import tensorflow as tf

ORIENTATION_TAG = 0x0112


def as_one_operation(function: Any, *arguments: tf.Tensor) -> tf.Tensor:
    """Calls a function that is rarely needed, as a branch of `tf.cond`.

    In a graph, the branch is a single operation. Otherwise, each of its operations would cost time when it is not taken.
    """
    if tf.executing_eagerly():
        return function(*arguments)
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})(*arguments)


def jpeg_orientation(jpeg: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a JPEG.

    Args:
        jpeg: The bytes of a file, a scalar string.

    Returns:
        Int32 scalar from 1 to 8. It is 1, for upright, if the first 64 KiB do not say or are damaged.
    """
    return _orientation_after(b"Exif\0\0", tf.strings.substr(jpeg, 0, 2**16))


def png_orientation(png: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a PNG; see `jpeg_orientation`. The whole file is searched."""
    return _orientation_after(b"eXIf", png)


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns or mirrors pixels `(H, W, C)` as their EXIF orientation says. Orientations 5 to 8 exchange height and width."""

    return tf.cond(orientation == 1, lambda: pixels, lambda: as_one_operation(_turned, pixels, orientation))


def _turned(pixels, orientation):
    transposed = tf.cond(_is_transposed(orientation), lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels)
    return tf.reverse(transposed, tf.boolean_mask([0, 1], _mirrored_axes(orientation)))


def upright_sides(sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the height and width `(2,)` of an image after `upright`."""
    return tf.where(_is_transposed(orientation), sides[::-1], sides)


def stored_window(window: tf.Tensor, sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns which part of a stored image becomes a window of the upright image.

    Args:
        window: `(top, left, height, width)` in the upright image, an int32 tensor of shape `(4,)`.
        sides: Height and width of the upright image, an int32 tensor of shape `(2,)`.
        orientation: The EXIF orientation.

    Returns:
        `(top, left, height, width)` in the stored image.
    """
    begin, extent = window[:2], window[2:]
    begin = tf.where(_mirrored_axes(orientation), sides - begin - extent, begin)
    both = tf.stack([begin, extent])
    return tf.reshape(tf.where(_is_transposed(orientation), both[:, ::-1], both), (4,))


def _is_transposed(orientation):
    """Returns whether height and width are exchanged before any axis is mirrored."""
    return orientation >= 5


def _mirrored_axes(orientation):
    """Returns whether the vertical and the horizontal axis are mirrored, after transposing, as booleans `(2,)`."""
    step = (orientation - 1) % 4  # 1: left and right are exchanged, 2: both axes, 3: top and bottom
    return tf.stack([step >= 2, (step == 1) | (step == 2)])


def _orientation_after(mark, file):
    parts = tf.raw_ops.StringSplitV2(input=[file], sep=mark, maxsplit=1).values
    return tf.cond(tf.size(parts) == 2, lambda: as_one_operation(_orientation, parts[1]), lambda: 1)


def _orientation(exif):
    """Returns the orientation in EXIF data: the header and the first directory of a TIFF file of either byte order."""
    order = tf.strings.substr(exif, 0, 4)
    cases = [
        (order == b"II*\0", lambda: as_one_operation(functools.partial(_read_orientation, little_endian=True), exif)),
        (order == b"MM\0*", lambda: as_one_operation(functools.partial(_read_orientation, little_endian=False), exif)),
    ]
    return tf.case(cases, lambda: 1)


def _read_orientation(exif, little_endian):
    """Looks up the orientation in the first directory of EXIF data."""

    def numbers(position, dtype, count=1):
        """Reads integers as int32. Those outside of the data are 0."""
        size = count * tf.as_dtype(dtype).size
        part = tf.strings.substr(exif, tf.clip_by_value(position, 0, tf.strings.length(exif)), size)
        return tf.cast(tf.io.decode_raw(part, dtype, little_endian, fixed_length=size), "int32")

    start = numbers(4, "int32")[0]
    count = tf.maximum(numbers(start, "uint16")[0], 1)
    entries = tf.reshape(numbers(start + 2, "uint16", 6 * count), (-1, 6))  # tag, type, number of values (2), value (2)
    values = tf.boolean_mask(entries[:, 4], entries[:, 0] == ORIENTATION_TAG)
    return tf.concat([tf.boolean_mask(values, (values >= 1) & (values <= 8)), [1]], 0)[0]
