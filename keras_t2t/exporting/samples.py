"""Images for calibration and comparison: your own, or the sample photos that come with the package."""

import os
import pathlib
from typing import Any

import keras
import numpy as np

from keras_t2t import assets

MAX_IMAGES = 100


def images_for(model: keras.Model, source: Any = None) -> np.ndarray:
    """Returns images `(n, H, W, C)`, float32, as `model` takes them.

    Args:
        model: A model with a fixed image size.
        source: An array `(n, H, W, C)` of what the model takes, a folder, or `None` for the ten sample photos that come with
            the package. From a folder, up to 100 evenly spaced files are used, prepared as the model expects.

    Raises:
        ValueError: If the images have the wrong shape, or if there are no images in the folder.
        FileNotFoundError: If the folder does not exist.
    """
    if source is None:
        source = assets.folder("images")
    if isinstance(source, (str, os.PathLike)):
        return _from_folder(pathlib.Path(source), model)
    shape = model.input_shape[1:]
    try:
        images = np.asarray(source, "float32")
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected an array of images, or a folder; received: {source!r}") from error
    if images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise ValueError(f"Expected images of shape (n, {', '.join(map(str, shape))}); received: shape={images.shape}")
    return images


def _from_folder(folder, model):
    from keras_t2t.data import load_images
    from keras_t2t.data.sources import SUFFIXES, images_in_folder

    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}")
    files = images_in_folder(folder)
    if not files:
        raise ValueError(f"Expected a folder with images ({', '.join(SUFFIXES)}); there are none in {folder}")
    chosen = np.unique(np.linspace(0, len(files) - 1, MAX_IMAGES).round().astype(int))
    return load_images([files[index] for index in chosen], model)
