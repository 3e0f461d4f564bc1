"""Masks: reading, views that move with the image, and errors."""

import dataclasses
import re
import shutil
import struct
import zlib

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import keras_t2t
from keras_t2t.data import find_bad_files, from_masks, segmentation_batches
from keras_t2t.data.views import mask_view
from keras_t2t.training import SegmentationEvaluation, evaluate_segmenter
from tests.micro import MICRO

SIZE = (24, 40)


@pytest.fixture
def folder(tmp_path):
    """Three images of 24x40 pixels with masks of the classes 0, 1, 2 and 255. The blue channel of a pixel shows its class."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for index in range(3):
        mask = np.kron(rng.choice([0, 1, 2, 255], (3, 5)), np.ones((8, 8))).astype("uint8")
        image = np.stack([rng.integers(0, 256, SIZE), rng.integers(0, 256, SIZE), mask // 2 + 60 * (mask < 3) * mask], -1)
        PIL.Image.fromarray(image.astype("uint8")).save(tmp_path / "images" / f"{index}.png")
        PIL.Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    return tmp_path


def source_of(folder, classes=("road", "sky", "tree"), ignore=255):
    return from_masks(folder / "images", folder / "masks", classes, ignore)


def test_reads_masks_of_every_kind(folder):
    expected = np.asarray(PIL.Image.open(folder / "masks" / "1.png"))
    assert source_of(folder).classes == ("road", "sky", "tree")
    assert source_of(folder, 3).classes == ("0", "1", "2")
    palette = PIL.Image.fromarray(expected, "P")
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    palette.save(folder / "masks" / "1.png")  # as in Pascal VOC
    np.testing.assert_array_equal(source_of(folder).read_mask(1), expected)
    PIL.Image.fromarray((expected + 256 * (expected == 255)).astype("uint16")).save(folder / "masks" / "1.png")
    assert source_of(folder, ignore=511).read_mask(1).max() == 511
    PIL.Image.fromarray(expected == 1).save(folder / "masks" / "1.png")
    np.testing.assert_array_equal(source_of(folder).read_mask(1), expected == 1)
    for bits in (2, 4):  # several classes in each byte
        path = folder / "masks" / "1.png"
        path.write_bytes(packed_png(expected % 3, bits))
        np.testing.assert_array_equal(source_of(folder).read_mask(1), expected % 3)


def packed_png(values, bits):
    """Returns a grayscale PNG file with fewer than 8 bits per pixel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    each = 8 // bits
    packed = sum(values[:, i::each].astype("uint8") << (8 - bits * (i + 1)) for i in range(each))
    rows = b"".join(b"\0" + row.astype("uint8").tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_images_listed_in_a_file(folder):
    """Pascal VOC has masks for some of its images only."""
    PIL.Image.new("RGB", (40, 24)).save(folder / "images" / "without a mask.jpg")
    (folder / "train.txt").write_text("2\n0 1\n\n")
    images, masks = folder / "images", folder / "masks"
    source = from_masks(images, masks, 3, 255, names=folder / "train.txt")
    assert source.images.tolist() == [str(images / "2.png"), str(images / "0.png")]
    assert source.masks.tolist() == [str(masks / "2.png"), str(masks / "0.png")]
    for name in ("0 1", "photo 2"):  # names with spaces, even if the first word is a name as well
        shutil.copy(folder / "images" / "2.png", folder / "images" / f"{name}.png")
        shutil.copy(folder / "masks" / "2.png", folder / "masks" / f"{name}.png")
    (folder / "train.txt").write_text("photo 2\n0 1\n", encoding="utf-8-sig")
    source = from_masks(images, masks, 3, 255, names=folder / "train.txt")
    assert source.images.tolist() == [str(images / "photo 2.png"), str(images / "0 1.png")]
    for name in ("7", "2 (2)", "2 3"):
        (folder / "train.txt").write_text(f"2\n{name}\n")
        with pytest.raises(keras_t2t.DataError, match=rf"There is no image {re.escape(name)} in .*images"):
            from_masks(images, masks, 3, 255, names=folder / "train.txt")
    with pytest.raises(keras_t2t.DataError, match=r"Cannot read the names of the images: .*val\.txt"):
        from_masks(images, masks, 3, 255, names=folder / "val.txt")


def test_masks_follow_their_images(folder):
    """Where the nearest pixel of a view is inside a class, the image shows the class as well."""
    batches = segmentation_batches(source_of(folder), SIZE, 3, crop_scale=(0.3, 0.9), seed=4)
    for images, masks in batches.take(4).as_numpy_iterator():
        assert images.shape == (3, *SIZE, 3) and masks.shape == (3, *SIZE) and masks.dtype == "int32"
        blue = np.where(masks == 255, 127, masks // 2 + 60 * masks)
        uniform = np.ones(masks.shape, bool)
        for axis in (1, 2):
            for shift in (-2, -1, 1, 2):
                uniform &= np.roll(masks, shift, axis) == masks
        assert uniform.mean() > 0.02
        assert (abs(images[..., 2] - blue) < 2)[uniform].mean() > 0.95
        assert set(np.unique(masks)) <= {0, 1, 2, 255}


def test_mask_view_by_hand():
    mask = tf.reshape(tf.range(20), (4, 5))
    view = mask_view(mask, tf.constant([1, 2, 2, 3]), tf.constant(True), (4, 3))
    assert view.numpy().tolist() == [[9, 8, 7], [9, 8, 7], [14, 13, 12], [14, 13, 12]]


@pytest.mark.slow
def test_epochs_differ_and_can_be_repeated(folder):
    def masks_of(**kwargs):
        batches = segmentation_batches(source_of(folder), (16, 24), 3, **kwargs)
        return [masks for _, masks in batches.take(2).as_numpy_iterator()]

    first, second = masks_of(seed=1)
    assert (first != second).any()
    np.testing.assert_array_equal(masks_of(seed=1)[1], second)
    np.testing.assert_array_equal(masks_of(seed=1, first_epoch=1)[0], second)
    assert (masks_of(seed=2)[0] != first).any()
    whole = segmentation_batches(source_of(folder), SIZE, 3, crop_scale=(1.0, 1.0), flip=False)
    masks = next(whole.as_numpy_iterator())[1]
    read = [source_of(folder).read_mask(index) for index in range(3)]
    assert {mask.tobytes() for mask in masks} == {mask.tobytes() for mask in read}


@pytest.mark.slow
def test_mean_iou_matches_numpy(folder):
    """At the resolution of the masks, for images of two sizes, without the pixels that have no class."""
    image = np.random.default_rng(1).integers(0, 256, (31, 21, 3)).astype("uint8")
    PIL.Image.fromarray(image).save(folder / "images" / "2.png")
    PIL.Image.fromarray(image[..., 0] % 3).save(folder / "masks" / "2.png")
    source = source_of(folder)
    model = keras_t2t.segmenter(keras_t2t.T2TViT(MICRO, input_shape=(32, 32, 3)), list(source.classes), image_size=(16, 24))
    report = evaluate_segmenter(model, source, batch_size=2)
    predicted, truth = [], []
    for index, path in enumerate(source.images):
        view = tf.image.resize(np.asarray(PIL.Image.open(path)), (16, 24)).numpy().round()
        mask = source.read_mask(index)
        scores = tf.image.resize(model.predict(view[None], verbose=0)[0], mask.shape).numpy()
        predicted.append(scores.argmax(-1)[mask != 255])
        truth.append(mask[mask != 255])
    predicted, truth = np.concatenate(predicted), np.concatenate(truth)
    expected = [((predicted == i) & (truth == i)).sum() / ((predicted == i) | (truth == i)).sum() for i in range(3)]
    np.testing.assert_allclose(report.intersections_over_unions, expected)
    assert report.mean_iou == pytest.approx(np.mean(expected))
    assert report.pixel_accuracy == pytest.approx((predicted == truth).mean())
    assert report.confusion.sum() == len(truth)
    metric = keras.metrics.MeanIoU(3)
    metric.update_state(truth, predicted)
    assert report.mean_iou == pytest.approx(float(metric.result()), abs=1e-6)


def test_classes_that_never_occur_do_not_count():
    report = keras_t2t.training.SegmentationReport(("a", "b", "c"), np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    np.testing.assert_allclose(report.intersections_over_unions, [3 / 4, 4 / 5, np.nan])
    assert report.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 2)


@pytest.mark.slow
def test_callback_adds_the_mean_iou(folder):
    source = source_of(folder)
    model = keras_t2t.segmenter(keras_t2t.T2TViT(MICRO, input_shape=(32, 32, 3)), 3)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(ignore_class=255))
    batches = segmentation_batches(source, (16, 24), 3)
    callback = SegmentationEvaluation(source, (16, 24), every=2)
    history = model.fit(batches, epochs=2, steps_per_epoch=1, callbacks=[callback], shuffle=False, verbose=0).history
    assert history["val_mean_iou"] == [pytest.approx(evaluate_segmenter(model, source, (16, 24)).mean_iou)]


def test_bad_masks_are_named(folder):
    PIL.Image.fromarray(np.full(SIZE, 3, "uint8")).save(folder / "masks" / "1.png")
    source = source_of(folder)
    message = r"Expected class indices from 0 to 2, or 255 for no class; .*1\.png has 3"
    with pytest.raises(keras_t2t.DataError, match=message):
        source.read_mask(1)
    with pytest.raises(tf.errors.OpError, match=message):
        next(segmentation_batches(source, (16, 24), 3).as_numpy_iterator())
    model = keras_t2t.segmenter(keras_t2t.T2TViT(MICRO, input_shape=(32, 32, 3)), 3)
    with pytest.raises(keras_t2t.DataError, match=f"^{message}$"):
        evaluate_segmenter(model, source, image_size=(32, 32))
    PIL.Image.fromarray(np.full(SIZE, -2, "int32")).save(folder / "negative.tif")
    with pytest.raises(keras_t2t.DataError, match=r"negative\.tif has -2"):
        dataclasses.replace(source, masks=np.array([str(folder / "negative.tif")])).read_mask(0)
    with pytest.raises(keras_t2t.DataError, match=r"Expected class indices from 0 to 2; .*0\.png has 255"):
        source_of(folder, ignore=None).read_mask(0)
    PIL.Image.fromarray(np.zeros((40, 24), "uint8")).save(folder / "masks" / "1.png")
    with pytest.raises(keras_t2t.DataError, match=r"a mask the size of its image, 40x24; .*1\.png is 24x40"):
        source_of(folder)
    PIL.Image.fromarray(np.zeros((*SIZE, 3), "uint8")).save(folder / "masks" / "1.png")
    with pytest.raises(keras_t2t.DataError, match=r"one channel of class indices; .*1\.png has the mode RGB"):
        source_of(folder)
    (folder / "masks" / "1.png").unlink()
    PIL.Image.fromarray(np.zeros(SIZE, "uint8")).save(folder / "masks" / "1.jpg")
    with pytest.raises(keras_t2t.DataError, match=r"saved without loss, such as a PNG file; .*1\.jpg is a JPEG file"):
        source_of(folder)
    (folder / "masks" / "1.jpg").unlink()
    (folder / "images" / "2.png").write_bytes((folder / "images" / "2.png").read_bytes()[:-30])
    assert find_bad_files(source) == [str(folder / "images" / "2.png")]
    content = (folder / "masks" / "0.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(keras_t2t.DataError, match=r"Cannot read .*truncated\.png: image file is truncated"):
        dataclasses.replace(source, masks=np.array([str(folder / "truncated.png")])).read_mask(0)
    (folder / "masks" / "1.png").write_bytes(b"no image")
    with pytest.raises(keras_t2t.DataError, match=r"Cannot read .*1\.png"):
        source_of(folder)
    (folder / "masks" / "1.png").unlink()
    with pytest.raises(keras_t2t.DataError, match=r"each with a mask of the same name in .*masks; found no mask for 1\.png"):
        source_of(folder)
    with pytest.raises(keras_t2t.DataError, match="There is no folder"):
        from_masks(folder / "nope", folder / "masks", 3)


def test_models_that_do_not_fit_are_refused(folder):
    source = source_of(folder)
    model = keras_t2t.segmenter(keras_t2t.T2TViT(MICRO, input_shape=(32, 32, 3)), 4)
    with pytest.raises(ValueError, match="Expected an image_size, because the model takes images of any size"):
        evaluate_segmenter(model, source)
    with pytest.raises(ValueError, match=r"Expected scores \(batch, height, width, 3\) .*; received: \(3, 16, 24, 4\)"):
        evaluate_segmenter(model, source, (16, 24))


def test_images_turned_by_their_orientation(folder):
    """A portrait photo is stored sideways. Its mask is upright."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = PIL.Image.fromarray(np.zeros((40, 24, 3), "uint8"))
    (folder / "images" / "1.png").unlink()
    image.save(folder / "images" / "1.jpg", exif=exif)
    source = source_of(folder)  # the mask has 24 rows and 40 columns
    assert next(segmentation_batches(source, (12, 20), 3).as_numpy_iterator())[0].shape == (3, 12, 20, 3)


def test_hidden_files_are_left_out(tmp_path):
    """As the ones that macOS adds to archives."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        PIL.Image.fromarray(np.zeros((6, 8), "uint8")).save(tmp_path / folder / "1.png")
        (tmp_path / folder / "._1.png").write_bytes(b"no image")
    source = from_masks(tmp_path / "images", tmp_path / "masks", np.int64(2))
    assert len(source) == 1 and source.classes == ("0", "1")
    for classes in ("road", 0, []):
        with pytest.raises(ValueError, match=r"classes.* a positive integer or the names of the classes"):
            from_masks(tmp_path / "images", tmp_path / "masks", classes)


def test_classes_of_a_segmenter_are_matched_by_name(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    PIL.Image.fromarray(np.arange(48, dtype="uint8").reshape(6, 8) % 3).save(tmp_path / "masks" / "1.png")
    PIL.Image.new("RGB", (8, 6)).save(tmp_path / "images" / "1.png")
    images = keras.Input((6, 8, 3))
    names = ["a", "b", "c"]
    scores = keras.layers.Dense(3, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant([0.0, 2.0, 1.0]))
    normalized = keras_t2t.layers.ImageNormalization(keras_t2t.Preprocessing(image_size=(6, 8)))(images)
    model = keras.Model(images, keras_t2t.layers.Predictions(None, labels=names)(scores(normalized)))
    report = evaluate_segmenter(model, from_masks(tmp_path / "images", tmp_path / "masks", names))
    other = evaluate_segmenter(model, from_masks(tmp_path / "images", tmp_path / "masks", ["c", "a", "b"]))
    assert report.confusion.sum(0).tolist() == [0, 48, 0]  # the model always answers "b"
    assert other.confusion.sum(0).tolist() == [0, 0, 48]
