"""The average precision: values that are known by construction, and detectors on files."""

import dataclasses
import sys

import keras
import numpy as np
import PIL.Image
import pytest

import keras_t2t
from keras_t2t.data import BoxSource
from keras_t2t.training import DetectionEvaluation, Detections, coco_average_precision, detect


def source_of(*rows, classes=("cat", "dog")):
    """Returns a source with the given (boxes, labels) for each image."""
    most = max(len(labels) for _, labels in rows)
    boxes, labels = np.full((len(rows), most, 4), -1.0, "float32"), np.full((len(rows), most), -1)
    for i, (box, label) in enumerate(rows):
        boxes[i, : len(label)], labels[i, : len(label)] = np.reshape(box, (-1, 4)), label
    return BoxSource(np.array([f"{i}.png" for i in range(len(rows))]), boxes, labels, classes)


SOURCE = source_of(([[0, 0, 10, 20], [30, 5, 50, 45]], [0, 1]), ([[5, 5, 25, 15]], [0]), ([], []))
TRUTH = [Detections(SOURCE.boxes[i][:n], SOURCE.labels[i][:n], np.full(n, 0.9)) for i, n in enumerate((2, 1, 0))]
NOTHING = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))


def test_the_truth_has_an_average_precision_of_one():
    report = coco_average_precision(TRUTH, SOURCE)
    assert report.classes == ("cat", "dog")
    assert report.average_precision == pytest.approx(1) and report.average_precision_at_50 == pytest.approx(1)
    np.testing.assert_allclose(report.average_precisions, [1, 1])


def test_missed_shifted_and_wrong_boxes():
    missed = coco_average_precision([TRUTH[0], NOTHING, NOTHING], SOURCE)
    # One of two cats: precision is 1 up to a recall of 0.5, which is the case for 51 of the 101 recalls 0, 0.01, ..., 1.
    np.testing.assert_allclose(missed.average_precisions, [51 / 101, 1])
    # Moved by 2 of 10 pixels, the intersection over union is 8 / 12: correct at the thresholds 0.5 to 0.65, which are 4 of 10.
    shifted = source_of(([[0, 0, 10, 20]], [0]), classes=("cat",))
    moved = [Detections(np.array([[2.0, 0, 12, 20]]), np.array([0]), np.array([0.5]))]
    report = coco_average_precision(moved, shifted)
    assert report.average_precision == pytest.approx(0.4) and report.average_precision_at_50 == pytest.approx(1)
    # A wrong box with a higher score halves the precision.
    two = np.array([[60.0, 60, 70, 70], [0, 0, 10, 20]])
    worse = coco_average_precision([Detections(two, np.array([0, 0]), np.array([0.9, 0.8]))], shifted)
    assert worse.average_precision == pytest.approx(0.5)
    assert coco_average_precision([NOTHING], shifted).average_precision == 0


def test_a_detection_of_an_ignored_box_does_not_count():
    cat, crowd, elsewhere = [0, 0, 10, 20], [40, 40, 80, 80], [200, 0, 210, 20]
    source = source_of(([cat], [0]), classes=("cat",))
    boxes, labels = np.array([[crowd]], "float32"), np.array([[0]])
    source = dataclasses.replace(source, ignored_boxes=boxes, ignored_labels=labels)
    # The detection in the crowd has the highest score. If it were wrong, the precision would be a half.
    for second, expected in (([50, 50, 60, 60], 1), (elsewhere, 0.5)):
        found = Detections(np.array([second, cat], "float32"), np.array([0, 0]), np.array([0.9, 0.8]))
        assert coco_average_precision([found], source).average_precision == pytest.approx(expected)


def test_classes_without_boxes_do_not_count():
    source = source_of(([[0, 0, 10, 20]], [0]))
    report = coco_average_precision([Detections(source.boxes[0], np.array([0]), np.array([0.5]))], source)
    np.testing.assert_allclose(report.average_precisions, [1, np.nan])
    assert report.average_precision == pytest.approx(1)
    with pytest.raises(ValueError, match="Expected detections for each of 1 images; received: 0"):
        coco_average_precision([], source)


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match=r'precision needs pycocotools: pip install "keras-t2t\[detect\]"'):
        coco_average_precision(TRUTH, SOURCE)


class KnowsTheTruth(keras.Model):
    """Finds the box around the white pixels of an image, in the form of KerasHub's detectors."""

    def call(self, images, training):
        return images

    def decode_predictions(self, _, images):
        boxes = np.zeros((len(images), 3, 4))
        for image, row in zip(images, boxes, strict=True):
            y, x = np.nonzero(image[..., 0] > 127)
            row[0] = x.min(), y.min(), x.max() + 1, y.max() + 1
        ones = np.ones((len(images), 3))
        found = {"boxes": boxes, "labels": ones.astype(int), "confidence": ones, "num_detections": np.ones(len(images), int)}
        return {name: keras.ops.convert_to_tensor(values) for name, values in found.items()}


def test_boxes_are_scaled_to_the_image_files(tmp_path):
    paths, boxes = [], []
    for index, (height, width) in enumerate([(60, 100), (90, 40), (64, 64)]):
        pixels = np.zeros((height, width, 3), "uint8")
        pixels[10:40, 15:35] = 255
        paths.append(tmp_path / f"{index}.png")
        PIL.Image.fromarray(pixels).save(paths[-1])
        boxes.append([[15, 10, 35, 40]])
    source = BoxSource(
        np.array([str(path) for path in paths]), np.array(boxes, "float32"), np.ones((3, 1), int), ("cat", "dog")
    )
    found = detect(KnowsTheTruth(), source, (128, 160), batch_size=2)
    for each in found:
        np.testing.assert_allclose(each.boxes, [[15, 10, 35, 40]], atol=0.9)
        assert each.labels.tolist() == [1]
    assert detect(KnowsTheTruth(), [], (128, 160)) == []
    (last,) = detect(KnowsTheTruth(), paths[-1:], (128, 160))
    np.testing.assert_array_equal(last.boxes, found[-1].boxes)
    with pytest.raises(ValueError, match=r"Expected several paths, such as a list of them; received the path .*0\.png"):
        detect(KnowsTheTruth(), str(paths[0]), (128, 160))
    report = coco_average_precision(found, source)
    assert report.average_precision_at_50 == pytest.approx(1)
    callback, logs = DetectionEvaluation(source, (128, 160), every=2), {}
    callback.set_model(KnowsTheTruth())
    callback.on_epoch_end(0, logs)
    assert not logs
    callback.on_epoch_end(1, logs)
    assert logs == {"val_average_precision": report.average_precision, "val_average_precision_at_50": pytest.approx(1)}


def test_images_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    for name, reason in (("bad.png", "not an image"), ("missing.png", "no such file")):
        with pytest.raises(keras_t2t.DataError, match=rf"Cannot read .*{name}: {reason}"):
            detect(keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Identity()]), [tmp_path / name])


@pytest.mark.slow
def test_detects_with_kerashub(tmp_path):
    PIL.Image.fromarray(np.zeros((50, 80, 3), "uint8")).save(tmp_path / "0.png")
    config = keras_t2t.T2TConfig(soft_splits=((7, 4, 2), (3, 2, 1), (3, 2, 1)), token_dim=8, embed_dim=24, depth=1, num_heads=2)
    model = keras_t2t.T2TViT(config, input_shape=(64, 64, 3))
    detector = keras_t2t.hub.detector(model, 3, image_size=(64, 96), max_level=5, confidence_threshold=0.0)
    source = BoxSource(np.array([str(tmp_path / "0.png")]), -np.ones((1, 1, 4)), -np.ones((1, 1), int), ("a", "b", "c"))
    (found,) = detect(detector, source)
    inputs = detector.preprocessor(np.zeros((1, 64, 96, 3), "float32"))
    expected = detector.decode_predictions(detector(inputs, training=False), inputs)
    np.testing.assert_allclose(found.boxes, expected["boxes"][0] * np.array([80 / 96, 50 / 64] * 2), rtol=1e-5)
    np.testing.assert_array_equal(found.labels, expected["labels"][0])
    np.testing.assert_array_equal(found.scores, expected["confidence"][0])
