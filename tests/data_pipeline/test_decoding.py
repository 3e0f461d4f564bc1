"""Pictures as they come: orientation, transparency, formats of every kind, and what is said about unreadable files."""

import dataclasses
import io
import pathlib
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from keras_t2t.data import Augmentation, decoding, from_folder, pillow, problems, read_view, training_batches
from keras_t2t.data.augment import random_crop
from keras_t2t.data.check import explain_data_errors
from keras_t2t.data.decoding import decode, decode_file
from keras_t2t.data.orientation import jpeg_orientation, stored_window, upright, upright_sides
from keras_t2t.data.problems import describe_problem
from keras_t2t.errors import DataError
from keras_t2t.preprocessing import Preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (13, 22, 4), dtype="uint8")
PHOTO, GLASS = PIL.Image.fromarray(PIXELS[..., :3]), PIL.Image.fromarray(PIXELS)
LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
AS_GRAPH = {function.__name__: tf.function(function, [tf.TensorSpec((), "string")]) for function in (decode, decode_file)}
DECODERS = {"decode": AS_GRAPH["decode"], "decode_file": AS_GRAPH["decode_file"]}

WHOLE = Augmentation(
    crop_mode="none", flip=False, rand_augment_num_ops=0, random_erase_prob=0.0, mixup=0.0, cutmix=0.0, label_smoothing=0.0
)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **LOSSLESS.get(kind, {}), **options)
    return buffer.getvalue()


def exif(orientation, big_endian=False):
    result = PIL.Image.Exif()
    result.endian = ">" if big_endian else "<"
    result[0x010F], result[0x0112] = "Maker of cameras", orientation
    return result


def pillow_view(data):
    """Returns what Pillow makes of a file: upright, over white, in RGB."""
    image = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))).convert("RGBA")
    return np.asarray(PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def test_the_decoder_is_traced_once_for_all_datasets():
    def decoded(*kinds):
        files = tf.data.Dataset.from_tensor_slices([encoded(PHOTO, kind) for kind in kinds])
        return list(files.map(decode_file, tf.data.AUTOTUNE).as_numpy_iterator())

    np.testing.assert_array_equal(decoded("PNG"), [PHOTO])
    traces = decoding._decode_in_graphs.experimental_get_tracing_count()
    np.testing.assert_array_equal(decoded("PNG", "TIFF", "WEBP"), 3 * [PHOTO])
    assert decoding._decode_in_graphs.experimental_get_tracing_count() == traces > 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(("kind", "decoders"), [("JPEG", 2), ("PNG", 2), ("WEBP", 1), ("TIFF", 1)])
def test_orientation_is_obeyed(kind, decoders, big_endian, orientation):
    data = encoded(PHOTO, kind, exif=exif(orientation, big_endian))
    if kind in ("JPEG", "PNG"):
        assert (b"MM\0*" if big_endian else b"II*\0") in data
    expected = pillow_view(data)
    assert expected.shape == ((22, 13, 3) if orientation >= 5 else (13, 22, 3))
    for name in list(DECODERS)[-decoders:]:
        np.testing.assert_array_equal(DECODERS[name](tf.constant(data)), expected, err_msg=name)


def test_orientation_after_other_segments_and_of_damaged_data():
    data = encoded(PHOTO, "JPEG", exif=exif(6))
    comment = b"\xff\xfe" + (5002).to_bytes(2, "big") + bytes(5000)
    assert int(jpeg_orientation(data[:2] + comment + data[2:])) == 6
    start = data.index(b"II*\0")
    for length in range(start + 40):  # ends inside of the directory
        assert int(jpeg_orientation(data[:length])) in (1, 6)
    rng = np.random.default_rng(0)
    for _ in range(50):
        garbage = data[: start + 4] + rng.integers(0, 256, 60, "uint8").tobytes()
        assert 1 <= int(jpeg_orientation(garbage)) <= 8
    entry = data.index(b"\x12\x01\x03\0\x01\0\0\0\x06")
    for wrong in (0, 9, 255):
        assert int(jpeg_orientation(data[: entry + 8] + bytes([wrong]) + data[entry + 9 :])) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_window_of_the_upright_image_is_found_in_the_stored_one(orientation):
    stored, orientation = tf.constant(PIXELS), tf.constant(orientation)
    whole = upright(stored, orientation)
    sides = upright_sides(tf.constant([13, 22]), orientation)
    assert tuple(sides.numpy()) == whole.shape[:2]
    top, left, height, width = stored_window(tf.constant([2, 3, 4, 7]), sides, orientation).numpy()
    part = upright(stored[top : top + height, left : left + width], orientation)
    np.testing.assert_array_equal(part, whole[2:6, 3:10])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("crop_mode", ["resized", "none"])
def test_training_crops_are_those_of_the_upright_photo(crop_mode, orientation):
    y, x = np.mgrid[:64, :96]
    photo = PIL.Image.fromarray(np.stack([2 * x, 3 * y, x + y], -1).astype("uint8"))
    turned = encoded(photo, "JPEG", exif=exif(orientation))
    plain = encoded(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(turned))), "PNG")
    augmentation = dataclasses.replace(Augmentation(), crop_mode=crop_mode)
    for seed in range(3):
        views = [random_crop(tf.constant(data), (24, 31), augmentation, tf.constant([1, seed])) for data in (turned, plain)]
        assert np.abs(views[0] - views[1]).max() < 4  # crops of a JPEG are decoded by a faster, less accurate transform


@pytest.mark.parametrize(
    ("image", "kind", "decoders"),
    [
        (GLASS, "PNG", 2),
        (GLASS.convert("LA"), "PNG", 2),
        (GLASS, "WEBP", 2),
        (GLASS, "TIFF", 1),
        (PHOTO, "WEBP", 2),
        (PHOTO.convert("1"), "PNG", 2),
        (PHOTO.convert("L"), "PNG", 2),
        (PHOTO.quantize(5), "PNG", 2),
        (PHOTO.quantize(2), "PNG", 2),
    ],
)
def test_transparent_images_are_laid_over_white(image, kind, decoders):
    data = encoded(image, kind)
    for name in list(DECODERS)[-decoders:]:
        np.testing.assert_array_equal(DECODERS[name](tf.constant(data)), pillow_view(data), err_msg=name)


@pytest.mark.parametrize(("kind", "decoders"), [("PNG", 2), ("GIF", 1)])
def test_transparent_colors_of_a_palette(kind, decoders):
    data = encoded(PHOTO.quantize(9), kind, transparency=bytes([0, 100, 255, 30]) if kind == "PNG" else 3)
    expected = pillow_view(data)
    assert (expected == 255).all(-1).any()
    for name in list(DECODERS)[-decoders:]:
        np.testing.assert_array_equal(DECODERS[name](tf.constant(data)), expected, err_msg=name)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("transparent", [False, True])
def test_transparent_level_of_gray_in_few_or_many_bits(transparent, bits):
    """Pillow cannot write gray levels of 2, 4 or 16 bits with a transparent one, so the file is put together here."""
    levels = np.random.default_rng(0).integers(0, 2**bits, (5, 16))
    shifts = np.arange(bits - 1, -1, -1)
    rows = np.packbits((levels[..., None] >> shifts & 1).reshape(5, -1).astype("uint8"), axis=1)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 5, bits, 0, 0, 0, 0))
    png += chunk(b"tRNS", struct.pack(">H", levels[2, 3])) if transparent else b""
    png += chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))) + chunk(b"IEND", b"")
    expected = levels >> 8 if bits == 16 else levels * 255 // (2**bits - 1)
    expected = np.where(transparent & (levels == levels[2, 3]), 255, expected)
    for function in DECODERS.values():
        np.testing.assert_array_equal(function(tf.constant(png)), np.repeat(expected[..., None], 3, -1))


@pytest.mark.parametrize("image", [PHOTO, GLASS], ids=["opaque", "transparent"])
def test_animated_webp(image):
    data = encoded(image, "WEBP", save_all=True, append_images=[image.rotate(180)])
    np.testing.assert_array_equal(decode_file(tf.constant(data)), pillow_view(data))
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected a WebP image; received an animation"):
        decode(tf.constant(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "L", "P", "1", "LA"])
def test_tiff(mode):
    data = encoded(GLASS.convert(mode), "TIFF")
    np.testing.assert_array_equal(decode_file(tf.constant(data)), pillow_view(data))


def test_16_bits_are_reduced_to_their_upper_8():
    levels = np.arange(15, dtype="uint16").reshape(3, 5) * 4000
    for kind in ("TIFF", "PNG"):
        pixels = decode_file(tf.constant(encoded(PIL.Image.fromarray(levels), kind)))
        np.testing.assert_array_equal(pixels, np.repeat((levels // 256)[..., None], 3, -1))


def test_avif_and_bmp_of_one_bit():
    for image, kind in ((PHOTO, "AVIF"), (PHOTO.convert("1"), "BMP"), (GLASS, "BMP")):
        data = encoded(image, kind)
        np.testing.assert_array_equal(decode_file(tf.constant(data)), pillow_view(data))


def test_heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(PHOTO.resize((128, 64))).save(buffer, exif=exif(6).tobytes())
    assert problems.format_of(buffer.getvalue()) == "HEIC"
    np.testing.assert_array_equal(decode_file(tf.constant(buffer.getvalue())), pillow_view(buffer.getvalue()))


def test_folders_of_all_formats_are_trained_on_and_prepared(tmp_path):
    files = {"a/x.tif": (GLASS, "TIFF"), "a/y.avif": (PHOTO, "AVIF"), "b/x.jpg": (PHOTO, "JPEG"), "b/y.webp": (GLASS, "WEBP")}
    for name, (image, kind) in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(image, kind, exif=exif(6)))
    preprocessing = Preprocessing(image_size=(22, 13), crop_fraction=1.0)
    for name in files:
        np.testing.assert_array_equal(read_view(tmp_path / name, preprocessing), pillow_view((tmp_path / name).read_bytes()))
    sources = from_folder(tmp_path, 0.5)
    assert sorted(len(source) for source in sources.values()) == [2, 2]
    for source in sources.values():
        images, _ = next(iter(training_batches(source, (22, 13), 2, WHOLE)))
        expected = [pillow_view(pathlib.Path(path).read_bytes()).tolist() for path in source.images]
        assert sorted(images.numpy().tolist()) == sorted(expected)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50)
PROBLEMS = {
    "empty file": b"",
    "not an image (starts with b'<!DOCTYP')": b"<!DOCTYPE html>",
    "truncated JPEG": encoded(PHOTO.resize((99, 70)), "JPEG")[:900],
    "truncated PNG": encoded(PHOTO, "PNG")[:300],
    "truncated GIF": encoded(PHOTO, "GIF")[:30],
    "truncated BMP": encoded(PHOTO, "BMP")[:300],
    "truncated WebP": encoded(PHOTO, "WEBP")[:300],
    "damaged PNG, or a kind that is not supported": encoded(PHOTO, "PNG").replace(b"IDAT", b"IDAX"),
    "damaged TIFF, or a kind that is not supported": encoded(PHOTO, "TIFF")[:50],
    "damaged AVIF, or a kind that is not supported": encoded(PHOTO, "AVIF")[:200],
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problems_are_described(problem, tmp_path):
    (tmp_path / "x.jpg").write_bytes(PROBLEMS[problem])
    assert describe_problem(tmp_path / "x.jpg") == problem
    with pytest.raises(ValueError) as caught:
        read_view(tmp_path / "x.jpg", Preprocessing())
    assert str(caught.value) == f"Cannot read {tmp_path / 'x.jpg'}: {problem}"


def test_no_problem_and_no_file(tmp_path):
    (tmp_path / "x.jpg").write_bytes(encoded(PHOTO, "PNG"))
    assert describe_problem(tmp_path / "x.jpg") is None
    assert describe_problem(tmp_path / "y.jpg") == "no such file or directory"
    assert describe_problem(tmp_path) == "is a directory"


@pytest.mark.parametrize(
    ("data", "missing", "problem"),
    [
        (HEIC, "heif", "HEIC needs pillow-heif: pip install pillow-heif"),
        (HEIC, "pillow", "HEIC needs Pillow: pip install pillow pillow-heif"),
        (encoded(PHOTO, "TIFF"), "pillow", "TIFF needs Pillow: pip install pillow"),
        (encoded(PHOTO, "AVIF"), "pillow", "AVIF needs Pillow: pip install pillow"),
        (
            encoded(PHOTO, "WEBP", save_all=True, append_images=[GLASS]),
            "pillow",
            "damaged WebP, or a kind that needs Pillow: pip install pillow",
        ),
    ],
)
def test_problems_name_the_package_to_install(data, missing, problem, tmp_path, monkeypatch):
    for module in (pillow, problems, decoding):
        for name in ("heif_is_installed", "pillow_is_installed")[: 1 + (missing == "pillow")]:
            monkeypatch.setattr(module, name, lambda: False, raising=False)
    (tmp_path / "x").write_bytes(data)
    assert describe_problem(tmp_path / "x") == problem


@pytest.mark.slow
def test_errors_of_a_pipeline_name_the_first_file_and_its_problem(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for index in range(3):
            (tmp_path / name / f"{index}.jpg").write_bytes(encoded(PHOTO, "JPEG"))
    source = from_folder(tmp_path)["train"]
    messages = (
        "Cannot read {}: truncated JPEG. Remove it",
        "Cannot read 2 files, such as {}: truncated JPEG. Remove them",
    )
    for index, message in enumerate(messages):
        with open(source.images[1 - index], "r+b") as file:
            file.truncate(300)
        with pytest.raises(DataError) as caught, explain_data_errors(source):
            list(training_batches(source, (8, 8), 2, WHOLE).take(3))
        assert str(caught.value) == message.format(source.images[1 - index])
