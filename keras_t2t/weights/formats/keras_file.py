"""Reading `.weights.h5` and `.keras` files without building a model."""

import io
import json
import os
import pathlib
import zipfile
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from keras_t2t.keras_internals import CONFIG_IN_KERAS_FILE, H5_LAYERS, WEIGHTS_IN_KERAS_FILE
from keras_t2t.weights.formats.limits import check_expansion


def read_h5(file: str | os.PathLike | BinaryIO, size: int | None = None) -> dict[str, np.ndarray]:
    """Returns the weights of the layers by their place in the file, such as `encoder_block_1/norm1/vars/0`.

    Args:
        file: The file, or its content as a binary stream.
        size: Bytes of the file, if it is a stream.

    Raises:
        ValueError: If the file declares far more than it holds, or refers to other files.
    """
    import h5py

    datasets: dict[str, h5py.Dataset] = {}
    outside = []

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            datasets[name] = item
            outside.append(item.external or item.is_virtual)

    with h5py.File(file) as content:
        outside.append(isinstance(content.get(H5_LAYERS, getlink=True), h5py.ExternalLink))
        content[H5_LAYERS].visititems(add)  # does not follow links to other files
        if any(outside):
            raise ValueError("it has data in other files")
        check_expansion(sum(item.nbytes for item in datasets.values()), size or pathlib.Path(file).stat().st_size)
        return {name: _with_dtype(item[()], item.attrs.get("dtype")) for name, item in datasets.items()}


def _with_dtype(array, name):
    """Keras stores bfloat16 as bytes, and its name beside them."""
    return array.view(ml_dtypes.bfloat16) if name == "bfloat16" and array.dtype.kind == "V" else array


def read_keras(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns the weights in a `.keras` file, as `read_h5` does.

    Raises:
        ValueError: As `read_h5`.
    """
    with zipfile.ZipFile(path) as archive:
        check_expansion(sum(info.file_size for info in archive.infolist()), pathlib.Path(path).stat().st_size)
        weights = archive.read(WEIGHTS_IN_KERAS_FILE)
    return read_h5(io.BytesIO(weights), len(weights))


def layer_configs(path: str | os.PathLike, class_name: str) -> list[dict[str, Any]]:
    """Returns the configurations of the layers of one class in the model of a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        layers = json.loads(archive.read(CONFIG_IN_KERAS_FILE))["config"].get("layers", [])
    return [layer["config"] for layer in layers if layer["class_name"] == class_name]
