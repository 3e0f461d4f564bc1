"""Images to measure and to compare with: those of the user, or the photographs that come with the package."""

import os
import pathlib

import keras
import numpy as np

from keras_t2t.deploy.graph import normalises
from keras_t2t.imagenet import preprocess_input

MOST_IMAGES = 100


def images_for(model: keras.Model, source=None) -> np.ndarray:
    """Returns images (n, H, W, C), float32, as `model` takes them.

    Args:
        model: of a fixed image size.
        source: images (n, H, W, C) that the model takes; or a folder, of which up to 100 files, evenly spread, are resized and
            cropped as for evaluation; or None for ten photographs that come with the package.

    Raises:
        ValueError: for images of another shape, or a folder without images.
        OSError: if the folder cannot be read.
    """
    shape = model.input_shape[1:]
    if source is None:
        source = sample_folder()
    elif not isinstance(source, (str, os.PathLike)):
        images = np.asarray(source, "float32")
        if images.ndim != 4 or images.shape[1:] != shape or not len(images):
            raise ValueError(f"Expected images of the shape (n, {', '.join(map(str, shape))}); received: {images.shape}")
        return images
    return _read(pathlib.Path(str(source)), model)


def sample_folder() -> pathlib.Path:
    """Returns the folder of the photographs that come with the package: in it where it is installed, else in `examples/`."""
    package = pathlib.Path(__file__).parent.parent
    installed, beside = package / "sample_images", package.parent / "examples" / "images"
    return installed if installed.is_dir() else beside


def _read(folder, model):
    from keras_t2t.data import default_crop, evaluation_image
    from keras_t2t.data.sources import SUFFIXES

    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}")
    *size, channels = model.input_shape[1:]
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise ValueError(f"Expected a folder of images ({', '.join(SUFFIXES)}); there are none in {folder}")
    chosen = np.unique(np.linspace(0, len(files) - 1, MOST_IMAGES).round().astype(int))
    images = np.stack([evaluation_image(files[i], size, default_crop(size)) for i in chosen]).astype("float32")
    if channels != 3:
        images = np.repeat(images.mean(-1, keepdims=True), channels, -1)
    return images if normalises(model) else preprocess_input(images) if channels == 3 else images / 127.5 - 1
