"""Boxes: reading Pascal VOC and COCO, views that move with the image, and errors."""

import json
import re

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import keras_t2t
from keras_t2t.data import detection_batches, from_coco, from_voc
from keras_t2t.data.boxes import checked_box
from keras_t2t.data.views import box_view

OBJECT = """<object><name>{}</name><difficult>{}</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""
OBJECTS = {"a": [("cat", 0, 1, 1, 10, 20), ("dog", 1, 5, 5, 8, 8), ("ant", 0, 31, 3, 40, 30)], "b": []}


def write_voc(folder, objects=OBJECTS):
    """Writes images of 40x30 pixels. Pixels inside a box are white."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, rows in objects.items():
        image = np.zeros((30, 40, 3), "uint8")
        for *_, x_min, y_min, x_max, y_max in rows:
            image[int(y_min) - 1 : int(y_max), int(x_min or 1) - 1 : int(x_max)] = 255
        PIL.Image.fromarray(image).save(folder / "JPEGImages" / f"{name}.png")
        content = "<size><width>40</width><height>30</height></size>" + "".join(OBJECT.format(*row) for row in rows)
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{content}</annotation>")
    (folder / "ImageSets/Main/train.txt").write_text("a\n")
    return folder


def test_voc(tmp_path):
    source = from_voc(write_voc(tmp_path))
    assert source.classes == ("ant", "cat") and len(source) == 2
    np.testing.assert_array_equal(source.boxes[0], [[0, 0, 10, 20], [30, 2, 40, 30]])
    np.testing.assert_array_equal(source.labels, [[1, 0], [-1, -1]])  # an image without boxes is an image
    assert (source.boxes[1] == -1).all()
    assert (source.ignored_labels == -1).all()  # no class of these boxes is that of the difficult one
    assert from_voc(tmp_path, with_difficult=True).classes == ("ant", "cat", "dog")
    train = from_voc(tmp_path, "train", ["dog", "cat", "ant"])
    assert len(train) == 1 and train.labels.tolist() == [[1, 2]]
    assert train.ignored_boxes.tolist() == [[[4, 4, 8, 8]]] and train.ignored_labels.tolist() == [[0]]


def write_coco(folder, **changes):
    for name in ("x.png", "y.png"):
        PIL.Image.fromarray(np.zeros((30, 40, 3), "uint8")).save(folder / name)
    annotations = [
        {"image_id": 7, "category_id": 90, "bbox": [2.5, 3, 10, 20.5], "iscrowd": 0},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        {"image_id": 7, "category_id": 3, "bbox": [5, 5, 4, 0]},  # COCO has two boxes without an area
        {"image_id": 7, "category_id": 3, "bbox": [30, 20, 10, 10]},
    ]
    content = {
        "images": [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in ((7, "x.png"), (4, "y.png"))],
        "annotations": annotations,
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}],
        **changes,
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def test_coco(tmp_path):
    source = from_coco(write_coco(tmp_path), tmp_path)
    assert source.classes == ("car", "toothbrush")
    np.testing.assert_array_equal(source.boxes[0], [[2.5, 3, 12.5, 23.5], [30, 20, 40, 30]])
    np.testing.assert_array_equal(source.labels, [[1, 0], [-1, -1]])
    np.testing.assert_array_equal(source.ignored_boxes, [[[0, 0, 40, 30]], [[-1] * 4]])
    np.testing.assert_array_equal(source.ignored_labels, [[0], [-1]])


def test_box_view_by_hand():
    boxes = tf.constant([[0, 0, 4, 4], [10, 4, 20, 8], [18, 2, 30, 6], [-1, -1, -1, -1]], "float32")
    labels = tf.constant([5, 6, 7, -1])
    window = tf.constant([2, 8, 10, 12])  # columns 8 to 20 and rows 2 to 12, enlarged 2 times
    for flipped, expected in ((False, [4, 4, 24, 12]), (True, [0, 4, 20, 12])):
        view, kept = box_view(boxes, labels, window, tf.constant(flipped), (20, 24))
        assert kept.numpy().tolist() == [6, -1, -1, -1]  # the first is outside; less than a quarter of the third is inside
        assert view.numpy().tolist() == [expected, [-1] * 4, [-1] * 4, [-1] * 4]


def test_known_fault_of_keras_random_crop_swaps_x_and_y():
    layer = keras.layers.RandomCrop(20, 30, bounding_box_format="xyxy")
    boxes = {"boxes": tf.constant([[[1.0, 12, 6, 15]]]), "labels": tf.constant([[0]])}
    moved = layer.transform_bounding_boxes(boxes, (5, 0))["boxes"]  # 5 rows are cut off at the top
    assert moved.numpy().tolist() == [[[0, 12, 1, 15]]]  # (1, 7, 6, 10) would be right


@pytest.mark.parametrize("key", ["labels", "classes"])
def test_boxes_follow_their_images(tmp_path, key):
    """The boxes of a view surround its white pixels."""
    rows = {str(i): [("cat", 0, 1 + 3 * i, 2 + i, 12 + 3 * i, 15 + i)] for i in range(8)}
    source = from_voc(write_voc(tmp_path, rows))
    batches = detection_batches(source, (60, 80), 4, seed=1, labels_key=key)
    count = 0
    for images, targets in batches.take(6).as_numpy_iterator():
        assert images.shape == (4, 60, 80, 3) and set(targets) == {"boxes", key}
        for image, (box,), (label,) in zip(images, targets["boxes"], targets[key], strict=True):
            if label < 0:
                continue
            y, x = np.nonzero(image[..., 0] > 127)
            np.testing.assert_allclose(box, [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1.6)
            count += 1
    assert count > 15


def test_bad_annotations_are_named(tmp_path):
    def error_of(match, *row):
        write_voc(tmp_path, {"c": [row]})
        with pytest.raises(keras_t2t.DataError, match=match):
            from_voc(tmp_path)

    message = r"and y_min <= y_max, inside the image of 40x30 pixels; .*c\.xml has \({}\)"
    error_of(r"Cannot read .*c\.xml: an object has no area: its box is \(5\.0, 5\.0, 4\.0, 20\.0\)", "cat", 0, 5, 5, 4, 20)
    error_of(message.format(r"4\.0, 4\.0, 8\.0, 32\.0"), "cat", 0, 5, 5, 8, 32)
    error_of(message.format(r"-3\.0, 4\.0, 8\.0, 20\.0"), "cat", 0, -2, 5, 8, 20)
    error_of(r"Cannot read .*c\.xml: an object has no xmin", "cat", 0, "", 5, 8, 20)
    write_voc(tmp_path, {"c": [("cat", 0, 0, 1, 41, 31)]})  # off by one, as in many data sets
    assert from_voc(tmp_path).boxes.tolist() == [[[0, 0, 40, 30]]]
    file = tmp_path / "Annotations" / "c.xml"
    file.write_text(f"<annotation>{OBJECT.format('cat', 0, 5, 5, 8, 32)}</annotation>")
    with pytest.raises(keras_t2t.DataError, match="inside the image of 40x30 pixels"):  # the size of the image file
        from_voc(tmp_path)
    file.write_text("<annotation>")
    with pytest.raises(keras_t2t.DataError, match=r"Cannot read .*c\.xml"):
        from_voc(tmp_path)


def test_missing_files_and_classes_are_named(tmp_path):
    with pytest.raises(keras_t2t.DataError, match="in the layout of Pascal VOC; there is no folder"):
        from_voc(tmp_path)
    write_voc(tmp_path)
    with pytest.raises(keras_t2t.DataError, match=r"There is no split 'val' in .*; its splits are: train"):
        from_voc(tmp_path, "val")
    with pytest.raises(keras_t2t.DataError, match=r"boxes of the classes \['cat'\] in .*; found \['ant'\]"):
        from_voc(tmp_path, classes=["cat"])
    (tmp_path / "JPEGImages" / "b.png").unlink()
    with pytest.raises(keras_t2t.DataError, match="There is no image b in"):
        from_voc(tmp_path)


def test_bad_coco_files_are_named(tmp_path):
    def error_of(match, **changes):
        annotation = {"image_id": 7, "category_id": 3, "bbox": [5, 5, 1, 4], **changes}
        with pytest.raises(keras_t2t.DataError, match=match):
            from_coco(write_coco(tmp_path, annotations=[annotation]), tmp_path)

    error_of(
        r"with x_min <= x_max and y_min <= y_max, .*; an annotation of image 7 in .*instances\.json has \(5, 5, 4, 9\)",
        bbox=[5, 5, -1, 4],
    )
    error_of(r"Cannot read .* as COCO annotations: an annotation has an unknown category_id, 4$", category_id=4)
    error_of(r"Cannot read .* as COCO annotations: an annotation has an unknown image_id, '7'$", image_id="7")
    error_of(r"Cannot read .* as COCO annotations: not enough values", bbox=[5, 5, 1])
    error_of(r"Cannot read .* as COCO annotations: .*str", bbox=[5, 5, "1", 4])
    with pytest.raises(keras_t2t.DataError, match="as COCO annotations"):
        from_coco(tmp_path / "nope.json", tmp_path)
    path = write_coco(tmp_path)
    (tmp_path / "y.png").unlink()
    with pytest.raises(keras_t2t.DataError, match=r"There is no image .*y\.png"):
        from_coco(path, tmp_path)
    with pytest.raises(keras_t2t.DataError, match="Found no images in"):
        from_coco(write_coco(tmp_path, images=[], annotations=[]), tmp_path)


def test_boxes_are_clipped_by_at_most_a_pixel():
    assert checked_box((-1, 0, 5, 5), (10, 10), "a.xml") == (0, 0, 5, 5)
    for nothing_left in ((-1, 0, 0, 5), (10, 2, 10.5, 9), (3, 3, 3, 9), (4, -0.5, 6, 0)):
        assert checked_box(nothing_left, (10, 10), "a.xml") is None
    for outside in ((-1.5, 0, 0, 5), (2, 2, 4, 11.5), (5, 3, 4, 9)):
        with pytest.raises(
            keras_t2t.DataError, match=rf"inside the image of 10x10 pixels; a.xml has {re.escape(str(outside))}"
        ):
            checked_box(outside, (10, 10), "a.xml")


def test_boxes_for_an_image_of_another_size_are_refused(tmp_path):
    """The image was turned upright or resized later, so its boxes are somewhere else."""
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (100, 60)).save(tmp_path / "JPEGImages" / "a.jpg", exif=exif)
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
    text = "<annotation><size><width>{}</width><height>{}</height></size><object><name>cat</name>{}</object></annotation>"
    (tmp_path / "Annotations" / "a.xml").write_text(text.format(100, 60, box))
    message = r"for the image as it is shown, 60x100; .* those for .*a\.jpg with 100x60 pixels. If the image has an EXIF"
    with pytest.raises(keras_t2t.DataError, match=message):
        from_voc(tmp_path)
    (tmp_path / "Annotations" / "a.xml").write_text(text.format(60, 100, box))
    assert from_voc(tmp_path).boxes.tolist() == [[[0, 0, 20, 30]]]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 60}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 30]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(keras_t2t.DataError, match=message):
        from_coco(tmp_path / "coco.json", tmp_path / "JPEGImages")
