"""Accuracies and the confusion matrix match counts by hand."""

import itertools
import types

import keras
import numpy as np
import PIL.Image
import pytest

import keras_t2t
from keras_t2t.data import IndexedSource, from_arrays
from keras_t2t.errors import DataError
from keras_t2t.figures import new_figure
from keras_t2t.training.evaluation import EvaluationReport, class_order, draw_confusion, evaluate

PIXELS = keras_t2t.Preprocessing(image_size=(8, 8), crop_fraction=1.0, mean=(0.0,) * 3, std=(1 / 255,) * 3)


def brightness_model(classes):
    """Classifies an image of the gray level 20 * n as class n."""
    inputs = keras.Input((8, 8, 3))
    pixels = keras_t2t.layers.ImageNormalization(PIXELS)(inputs)
    level = keras.layers.GlobalAveragePooling2D()(pixels)
    level = keras.ops.mean(level, -1, keepdims=True) / 20
    scores = -keras.ops.abs(level - keras.ops.reshape(keras.ops.arange(classes, dtype="float32"), (1, -1)))
    return keras.Model(inputs, scores)


def test_report_matches_counts_by_hand(tmp_path):
    predicted, labels = [0, 1, 1, 2, 6, 0, 3], [0, 1, 1, 1, 0, 0, 3]
    images = np.stack([np.full((8, 8, 3), 20 * level, "uint8") for level in predicted])
    report = evaluate(brightness_model(7), from_arrays(images, labels, list("abcdefg")), batch_size=3)
    expected = np.zeros((7, 7), int)
    for label, level in zip(labels, predicted, strict=True):
        expected[label, level] += 1
    np.testing.assert_array_equal(report.confusion, expected)
    assert report.top1 == pytest.approx(5 / 7)
    assert report.top5 == pytest.approx(6 / 7)  # for the image of class 6, class 0 ranks last
    np.testing.assert_allclose(report.class_accuracies, [2 / 3, 2 / 3, np.nan, 1, np.nan, np.nan, np.nan])
    draw_confusion(report, tmp_path / "confusion.png")
    assert min(PIL.Image.open(tmp_path / "confusion.png").size) > 400


@pytest.mark.parametrize(("batch_size", "rate"), [(3, 4), (7, 7)])
def test_the_first_of_several_batches_is_not_timed(monkeypatch, batch_size, rate):
    clock = types.SimpleNamespace(perf_counter=itertools.count().__next__)  # a second passes between two looks at it
    monkeypatch.setattr("keras_t2t.training.evaluation.time", clock)
    source = from_arrays(np.zeros((7, 8, 8, 3), "uint8"), [0, 1, 0, 1, 0, 1, 0], ["a", "b"])
    assert evaluate(brightness_model(2), source, batch_size).images_per_second == rate


def test_order_of_classes():
    assert class_order(("a", "b", "c"), ("c", "a", "b")) == [2, 0, 1]
    for labels in (None, ("a", "b", "a"), ("x", "y", "z")):
        assert list(class_order(labels, ("a", "b", "a"))) == [0, 1, 2]


@pytest.fixture
def figures(monkeypatch):
    """The figures that `draw_confusion` has drawn."""
    drawn = []
    monkeypatch.setattr("keras_t2t.training.evaluation.new_figure", lambda *size: drawn.append(new_figure(*size)) or drawn[-1])
    return drawn


def test_confusion_picture_leaves_zeros_blank(tmp_path, figures):
    confusion = np.array([[199, 1, 0], [0, 0, 0], [30, 10, 60]])
    draw_confusion(EvaluationReport(tuple("abc"), confusion, None, 1.0), tmp_path / "confusion.png")
    axes = figures[0].axes[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(axes.images[0].get_array()), confusion == 0)
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "100", (1, 0): "<1", (0, 2): "30", (1, 2): "10", (2, 2): "60"}
    x, y = axes.transData.transform((1, 1)).astype(int)  # the middle cell
    pixels = np.asarray(PIL.Image.open(tmp_path / "confusion.png").convert("RGB"))
    scale = pixels.shape[0] / figures[0].bbox.height
    np.testing.assert_array_equal(pixels[-int(y * scale), int(x * scale)], 255)


def test_long_names_leave_room_for_the_confusion_matrix(tmp_path, figures):
    classes = ("Tomato___Spider_mites_Two_spotted_spider_mite", "Tomato___Tomato_Yellow_Leaf_Curl_Virus", "Tomato___healthy")
    draw_confusion(EvaluationReport(classes, np.eye(3, dtype=int), None, 1.0), tmp_path / "confusion.png")
    axes = figures[0].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["Tomato___Spider_mites_Tw…", "Tomato___Tomato_Yellow_L…", "Tomato___healthy"]
    assert axes.get_window_extent().width > 0.35 * figures[0].bbox.width


def test_classes_are_matched_by_name_or_by_index():
    backbone = keras_t2t.T2TViTTiny32(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="token")
    model = keras_t2t.replace_head(backbone, ["b", "c", "a"])
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), "uint8")
    predicted = model.predict(images, verbose=0).argmax(1)
    labels = np.array([1, 2, 0])[predicted]  # indices of the predicted classes in the data
    assert evaluate(model, from_arrays(images, labels, ["a", "b", "c"])).top1 == 1.0
    assert evaluate(model, from_arrays(images, predicted, ["x", "y", "z"])).top1 == 1.0  # by index


def test_few_classes_have_no_top5_and_a_different_number_of_classes_raises():
    images = np.zeros((2, 8, 8, 3), "uint8")
    assert evaluate(brightness_model(3), from_arrays(images, [0, 2], list("abc"))).top5 is None
    with pytest.raises(ValueError, match="Expected a model with 3 classes, like the data; received: 4 classes"):
        evaluate(brightness_model(4), from_arrays(images, [0, 2], list("abc")))


def test_two_classes_may_have_the_same_name():
    """As "crane" in ImageNet, a bird and a machine: they are matched by index."""
    names = ["crane", "dog", "crane"]
    model = brightness_model(3)
    scores = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")(model.output)
    model = keras.Model(model.input, keras_t2t.layers.Predictions(None, labels=names)(scores))
    images = np.stack([np.full((8, 8, 3), 20 * level, "uint8") for level in (0, 1, 2)])
    assert keras_t2t.labels_of(model) == tuple(names)
    assert evaluate(model, from_arrays(images, [0, 1, 2], names)).top1 == 1.0


def test_an_image_that_cannot_be_read(tmp_path):
    PIL.Image.new("RGB", (9, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths = np.array([str(tmp_path / "good.png"), str(tmp_path / "bad.png")])
    with pytest.raises(DataError, match=r"Cannot read .*bad\.png: not an image .*\. Remove it$"):
        evaluate(brightness_model(2), IndexedSource(paths, np.arange(2), ("a", "b")))
