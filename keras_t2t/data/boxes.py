"""Images with labeled boxes, for object detection."""

import dataclasses
import json
import os
import pathlib
import xml.etree.ElementTree
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_t2t.data.masks import find_images, read_names, size_of_image
from keras_t2t.data.sources import path_tensor, shuffled_indices
from keras_t2t.errors import DataError

NO_BOX = -1
"""Value of the coordinates and labels in rows that are not boxes."""


@dataclasses.dataclass(frozen=True, eq=False)
class BoxSource:
    """Image files with boxes.

    Attributes:
        images: Paths of the images, an array of strings `(N,)`.
        boxes: Boxes as (x_min, y_min, x_max, y_max) in pixels, float32 of shape `(N, M, 4)`, where M is the largest number of
            boxes in an image. Rows without a box are -1 and come last. Both ends are edges of pixels, so a box around the first
            pixel of an image is (0, 0, 1, 1).
        labels: Class indices, int32 of shape `(N, M)`; -1 in rows without a box.
        classes: Names of the classes.
        ignored_boxes: Boxes of shape `(N, K, 4)` that are not trained on, and that a detector may find or not, such as crowds.
        ignored_labels: Their class indices, of shape `(N, K)`.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    ignored_boxes: np.ndarray | None = None
    ignored_labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def elements(self, epoch_seed: tf.Tensor | None, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Returns the bytes of each image file, its boxes `(M, 4)` and its labels `(M,)`; see `Source.elements`."""
        with tf.init_scope():
            images, boxes, labels = path_tensor(self.images), tf.constant(self.boxes), tf.constant(self.labels)

        def load(index):
            return tf.io.read_file(images[index]), boxes[index], labels[index]

        return shuffled_indices(len(self), epoch_seed, shard).map(load, tf.data.AUTOTUNE, deterministic=True)


def from_voc(
    folder: str | os.PathLike,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    *,
    with_difficult: bool = False,
) -> BoxSource:
    """Returns the images of a folder in the layout of Pascal VOC.

    The folder has the subfolders `JPEGImages` and `Annotations`, with an XML file for every image. Coordinates in the files
    count pixels from 1 and include the last one.

    Args:
        folder: Path of the folder.
        split: Name of a file in `ImageSets/Main`, such as `"train"`, with the name of an image in each line. Defaults to all
            files in `Annotations`.
        classes: Names of the classes. Defaults to the names in the files, sorted. Pass them if a split may lack a class.
        with_difficult: Whether to treat boxes marked as difficult like the others. Otherwise, they are ignored in training
            and in evaluation.

    Raises:
        DataError: If a file is missing or cannot be read, if it has an unknown class, or if a box is outside of its image or
            made for an image of another size. An image may have no boxes.
        ImportError: If Pillow is not installed.

    Example:

    >>> source = keras_t2t.data.from_voc("VOCdevkit/VOC2007", "trainval")  # doctest: +SKIP
    """
    folder = pathlib.Path(folder)
    annotations = folder / "Annotations"
    if not annotations.is_dir():
        raise DataError(f"Expected a folder in the layout of Pascal VOC; there is no folder {annotations}")
    if split is None:
        names = sorted(path.stem for path in annotations.glob("*.xml"))
    else:
        listed = folder / "ImageSets" / "Main" / f"{split}.txt"
        if not listed.is_file():
            available = ", ".join(sorted(path.stem for path in listed.parent.glob("*.txt"))) or "none"
            raise DataError(f"There is no split {split!r} in {listed.parent}; its splits are: {available}")
        names = read_names(listed)
    rows = []
    for image in find_images(folder / "JPEGImages", names):
        rows.append((image, _read_voc(annotations / f"{image.stem}.xml", image, with_difficult)))
    return _source(rows, classes, folder)


def _read_voc(path, image, with_difficult):
    """Returns the (class, box, ignored) triples of an annotation file, after checking them."""
    try:
        root = xml.etree.ElementTree.parse(path).getroot()
        size = int(root.findtext("size/width") or 0), int(root.findtext("size/height") or 0)
        objects = []
        for entry in root.iter("object"):
            x_min, y_min, x_max, y_max = (_coordinate(entry, side) for side in ("xmin", "ymin", "xmax", "ymax"))
            if x_min > x_max or y_min > y_max:
                raise ValueError(f"an object has no area: its box is {(x_min, y_min, x_max, y_max)}")
            ignored = entry.findtext("difficult") == "1" and not with_difficult
            objects.append((entry.findtext("name") or "", (x_min - 1, y_min - 1, x_max, y_max), ignored))
    except (OSError, ValueError, xml.etree.ElementTree.ParseError) as error:
        raise DataError(f"Cannot read {path}: {error}") from error
    shown = _check_size(size if all(size) else None, image, path)
    checked = ((name, checked_box(box, shown, path), ignored) for name, box, ignored in objects)
    return [(name, box, ignored) for name, box, ignored in checked if box]


def _check_size(size, image, path):
    """Checks that boxes are made for the image as it is read: upright, and not resized later. Returns its size."""
    received = size_of_image(image)
    if size is not None and tuple(size) != received:
        raise DataError(
            f"Expected boxes for the image as it is shown, {received[0]}x{received[1]}; {path} has those for {image} with "
            f"{size[0]}x{size[1]} pixels. If the image has an EXIF orientation, save it upright"
        )
    return received


def _coordinate(entry, side):
    text = entry.findtext(f"bndbox/{side}")
    if not text:
        raise ValueError(f"an object has no {side}")
    return float(text)


def checked_box(box: Sequence[float], size: tuple[int, int], origin: str | os.PathLike) -> tuple[float, ...] | None:
    """Returns a box after clipping at most one pixel, which many datasets are off by, or `None` if it has no area then.

    Args:
        box: (x_min, y_min, x_max, y_max) in pixels.
        size: `(width, height)` of the image.
        origin: Where the box comes from, for the error message.

    Raises:
        DataError: If the sides of the box are in the wrong order, or more than one pixel outside of the image.
    """
    x_min, y_min, x_max, y_max = box
    width, height = size
    if not (-1 <= x_min <= x_max <= width + 1 and -1 <= y_min <= y_max <= height + 1):
        raise DataError(
            "Expected a box (x_min, y_min, x_max, y_max) with x_min <= x_max and y_min <= y_max, inside the image of "
            f"{width}x{height} pixels; {origin} has {tuple(box)}"
        )
    x_min, y_min, x_max, y_max = max(x_min, 0.0), max(y_min, 0.0), min(x_max, width), min(y_max, height)
    return (x_min, y_min, x_max, y_max) if x_min < x_max and y_min < y_max else None


def from_coco(annotations: str | os.PathLike, images: str | os.PathLike) -> BoxSource:
    """Returns the images of a JSON file in the format of COCO.

    The classes are those of the file, in the order of their ids. Crowds are ignored in training and in evaluation. Boxes
    without an area in the image, of which COCO has two, are left out.

    Args:
        annotations: The JSON file, with `images`, `annotations` and `categories`.
        images: Folder of the images.

    Raises:
        DataError: If the file cannot be read, if an image is missing or has another size than in the file, or if a box is
            outside of its image. An image may have no boxes.
        ImportError: If Pillow is not installed.

    Example:

    >>> source = keras_t2t.data.from_coco("instances_val2017.json", "val2017")  # doctest: +SKIP
    """
    try:
        content = json.loads(pathlib.Path(annotations).read_text("utf-8"))
        names = {entry["id"]: entry["name"] for entry in sorted(content["categories"], key=lambda entry: entry["id"])}
        sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in content["images"]}
        objects = defaultdict(list)
        for entry in content["annotations"]:
            for key, known in (("image_id", sizes), ("category_id", names)):
                if entry[key] not in known:
                    raise ValueError(f"an annotation has an unknown {key}, {entry[key]!r}")
            (x, y, width, height), image = entry["bbox"], entry["image_id"]
            box = checked_box((x, y, x + width, y + height), sizes[image], f"an annotation of image {image} in {annotations}")
            if box:
                objects[image].append((names[entry["category_id"]], box, bool(entry.get("iscrowd"))))
        files = [(pathlib.Path(images) / entry["file_name"], objects[entry["id"]]) for entry in content["images"]]
    except DataError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"Cannot read {annotations} as COCO annotations: {reason}") from error
    missing = [path for path, _ in files if not path.is_file()]
    if missing:
        raise DataError(f"There is no image {missing[0]}")
    for entry, (path, _) in zip(content["images"], files, strict=True):
        _check_size((entry["width"], entry["height"]), path, annotations)
    return _source(files, tuple(names.values()), annotations)


def _source(rows, classes, origin):
    """Returns the source for pairs of an image file and its (class, box, ignored) triples."""
    if not rows:
        raise DataError(f"Found no images in {origin}")
    found = sorted({name for _, objects in rows for name, _, ignored in objects if not ignored})
    classes = tuple(found if classes is None else classes)
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise DataError(f"Expected boxes of the classes {list(classes)} in {origin}; found {unknown}")
    images = np.array([str(path) for path, _ in rows])
    objects = [[(box, classes.index(name), ignored) for name, box, ignored in each if name in classes] for _, each in rows]
    boxes, labels = _padded(objects, False)
    return BoxSource(images, boxes, labels, classes, *_padded(objects, True))


def _padded(objects, which):
    """Returns the boxes `(N, M, 4)` and the labels `(N, M)` of the objects that are ignored, or of the others."""
    chosen = [[(box, label) for box, label, ignored in each if ignored is which] for each in objects]
    most = max(1, *map(len, chosen))
    boxes = np.full((len(chosen), most, 4), NO_BOX, "float32")
    labels = np.full((len(chosen), most), NO_BOX, "int32")
    for row, each in enumerate(chosen):
        for column, (box, label) in enumerate(each):
            boxes[row, column], labels[row, column] = box, label
    return boxes, labels
