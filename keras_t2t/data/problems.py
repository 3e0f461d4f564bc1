"""Saying what is wrong with a file that cannot be decoded."""

import os

import tensorflow as tf

from keras_t2t.data.decoding import decode_file
from keras_t2t.data.pillow import heif_is_installed, pillow_is_installed

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\x3b"}
NEED_PILLOW = {"TIFF": "pillow", "AVIF": "pillow", "HEIC": "pillow pillow-heif"}
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def describe_problem(path: str | os.PathLike) -> str | None:
    """Says in a few words why a file cannot be decoded as an image.

    Args:
        path: Path of the file.

    Returns:
        The reason, such as `"truncated JPEG"`, or `None` if the file can be decoded.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    try:
        decode_file(tf.constant(data))
        return None
    except tf.errors.OpError:
        return _reason(data)


def _reason(data):
    image_format = format_of(data)
    if not data:
        return "empty file"
    if image_format is None:
        return f"not an image (starts with {data[:8]!r})"
    if _is_truncated(data, image_format):
        return f"truncated {image_format}"
    if image_format == "HEIC" and pillow_is_installed() and not heif_is_installed():
        return "HEIC needs pillow-heif: pip install pillow-heif"
    if image_format in NEED_PILLOW and not pillow_is_installed():
        return f"{image_format} needs Pillow: pip install {NEED_PILLOW[image_format]}"
    if image_format not in ("JPEG", "PNG") and not pillow_is_installed():
        return f"damaged {image_format}, or a kind that needs Pillow: pip install pillow"
    return f"damaged {image_format}, or a kind that is not supported"


def format_of(data: bytes) -> str | None:
    """Returns the name of the format that the first bytes of a file announce, or `None` if it is not one of an image."""
    for signature, name in SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] != b"ftyp":
        return None
    brands = [data[start : start + 4] for start in (8, *range(16, min(int.from_bytes(data[:4], "big"), 256), 4))]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIC" if set(brands) & set(HEIC_BRANDS) else None


def _is_truncated(data, image_format):
    if image_format in ENDINGS:
        return ENDINGS[image_format] not in data[-64:]
    if image_format == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return image_format == "BMP" and int.from_bytes(data[2:6], "little") > len(data)
