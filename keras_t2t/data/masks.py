"""Images with a mask that has the class of every pixel, for semantic segmentation."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_t2t.configs import check_value, is_count
from keras_t2t.data.orientation import ORIENTATION_TAG
from keras_t2t.data.sources import SUFFIXES, is_visible, path_tensor, shuffled_indices
from keras_t2t.errors import DataError
from keras_t2t.extras import import_extra

PNG_BIT_DEPTH = 24
"""Position of the byte in a PNG file that has the number of bits of a value."""


@dataclasses.dataclass(frozen=True, eq=False)
class MaskSource:
    """Image files with mask files.

    Attributes:
        images: Paths of the images, an array of strings `(N,)`.
        masks: Paths of the masks, an array of strings `(N,)`.
        classes: Names of the classes, in the order of their indices in the masks.
        ignore: Index in the masks that means "no class", or `None`.
    """

    images: np.ndarray
    masks: np.ndarray
    classes: tuple[str, ...]
    ignore: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    def read_mask(self, index: int) -> np.ndarray:
        """Reads a mask.

        Args:
            index: Index of the image.

        Returns:
            Class indices of shape `(H, W)`, int32.

        Raises:
            DataError: If the mask has an index that is neither a class nor `ignore`.
        """
        mask = read_indices(self.masks[index])
        wrong = mask[((mask < 0) | (mask >= len(self.classes))) & self.has_class(mask)]
        if wrong.size:
            ignored = "" if self.ignore is None else f", or {self.ignore} for no class"
            raise DataError(
                f"Expected class indices from 0 to {len(self.classes) - 1}{ignored}; {self.masks[index]} has {wrong[0]}"
            )
        return mask

    def has_class(self, mask: np.ndarray) -> np.ndarray:
        """Returns which pixels of a mask `(H, W)` are not to be ignored, as a boolean array."""
        return np.ones(mask.shape, bool) if self.ignore is None else mask != self.ignore

    def elements(self, epoch_seed: tf.Tensor | None, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Returns pairs of the bytes of an image file and its mask `(H, W)`; see `Source.elements`."""
        with tf.init_scope():
            images = path_tensor(self.images)

        def load(index):
            mask = tf.numpy_function(self.read_mask, [index], "int32", stateful=False)
            return tf.io.read_file(images[index]), tf.ensure_shape(mask, (None, None))

        return shuffled_indices(len(self), epoch_seed, shard).map(load, tf.data.AUTOTUNE, deterministic=True)


def from_masks(
    images: str | os.PathLike,
    masks: str | os.PathLike,
    classes: int | Sequence[str],
    ignore: int | None = None,
    names: str | os.PathLike | None = None,
) -> MaskSource:
    """Returns the images in a folder, with the masks in another folder that have the same file names except for the suffix.

    A mask is a PNG file, or another file that Pillow reads without loss, with one channel of class indices. In files with a
    palette, such as those of Pascal VOC, the index is that of the color.

    Args:
        images: Folder of images.
        masks: Folder of masks. Masks without an image are ignored.
        classes: Number of classes, or their names in the order of their indices.
        ignore: Index in the masks that means "no class", such as 255, or `None`.
        names: Text file with the name of an image in each line, without the suffix, such as those in `ImageSets/Segmentation`
            of Pascal VOC. Defaults to all images in the folder.

    Raises:
        DataError: If there are no images, if an image has no mask or a mask of another size, if a mask has several channels or
            is a JPEG file, or if an image in `names` is missing.
        ImportError: If Pillow is not installed.

    Example:

    >>> source = keras_t2t.data.from_masks("street/images", "street/masks", ["road", "sky"], ignore=255)  # doctest: +SKIP
    """
    folders = pathlib.Path(images), pathlib.Path(masks)
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}")
    paths, candidates = (_images_directly_in(folder) for folder in folders)
    if names is not None:
        paths = find_images(folders[0], read_names(names))
    by_name = {path.stem: path for path in candidates}
    missing = [path.name for path in paths if path.stem not in by_name]
    if missing or not paths:
        found = f"no mask for {missing[0]}" if missing else "no images"
        raise DataError(f"Expected images in {folders[0]}, each with a mask of the same name in {folders[1]}; found {found}")
    pairs = [(path, by_name[path.stem]) for path in paths]
    for pair in pairs:
        _check_pair(*pair)
    valid = is_count(classes) or (isinstance(classes, Sequence) and not isinstance(classes, str) and len(classes) > 0)
    check_value(valid, "classes", "a positive integer or the names of the classes", classes)
    class_names = tuple(classes) if isinstance(classes, Sequence) else tuple(map(str, range(int(classes))))
    image_paths, mask_paths = np.array(pairs, dtype=str).T
    return MaskSource(image_paths, mask_paths, class_names, ignore)


def read_names(path: str | os.PathLike) -> list[str]:
    """Returns the lines of a text file that are not empty."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
        return [line.strip() for line in lines if line.strip()]
    except OSError as error:
        raise DataError(f"Cannot read the names of the images: {error}") from error


def find_images(folder: pathlib.Path, names: Iterable[str]) -> list[pathlib.Path]:
    """Returns the image files in a folder that have the given names, without their suffix.

    A name may be followed by a flag, which is 1, 0 or -1, as in the lists of Pascal VOC for each class.

    Raises:
        DataError: If there is no file for a name.
    """
    by_name = {path.stem: path for path in reversed(_images_directly_in(folder))}
    paths = []
    for name in names:
        flagged = re.fullmatch(r"(\S+)\s+(-1|0|1)", name)
        path = by_name.get(name) or (by_name.get(flagged[1]) if flagged else None)
        if path is None:
            raise DataError(f"There is no image {name} in {folder}")
        paths.append(path)
    return paths


def _images_directly_in(folder):
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and is_visible(path.name))


def _check_pair(image_path, mask_path):
    size = size_of_image(image_path)
    with _open(mask_path) as mask:
        if mask.size != size:
            raise DataError(
                f"Expected a mask the size of its image, {size[0]}x{size[1]}; {mask_path} is {mask.size[0]}x{mask.size[1]}"
            )
        if mask.format in ("JPEG", "MPO"):
            raise DataError(f"Expected a mask that was saved without loss, such as a PNG file; {mask_path} is a JPEG file")
        if len(mask.getbands()) > 1:
            raise DataError(f"Expected a mask with one channel of class indices; {mask_path} has the mode {mask.mode}")


def size_of_image(path: str | os.PathLike) -> tuple[int, int]:
    """Returns the width and height of an image in pixels, after turning it as its EXIF orientation says.

    Raises:
        DataError: If the file is not an image.
        ImportError: If Pillow is not installed.
    """
    with _open(path) as image:
        turned = image.getexif().get(ORIENTATION_TAG, 1) >= 5
        return image.size[::-1] if turned else image.size


def read_indices(path: str | os.PathLike) -> np.ndarray:
    """Returns the values or palette indices of an image file with one channel, int32 of shape `(H, W)`.

    Raises:
        DataError: If the file is not an image.
        ImportError: If Pillow is not installed.
    """
    with _open(path) as image:
        try:
            indices = np.asarray(image, "int32")
        except OSError as error:  # Pillow reads the pixels now
            raise DataError(f"Cannot read {path}: {error}") from error
        if image.format == "PNG" and image.mode == "L":  # Pillow stretches 2 and 4 bits to 8
            bits = pathlib.Path(path).read_bytes()[PNG_BIT_DEPTH]
            indices = indices // (255 // (2**bits - 1))
        return indices


def _open(path):
    image = import_extra("PIL.Image", "Masks and boxes need Pillow", "images")
    try:
        return image.open(path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error}") from error
