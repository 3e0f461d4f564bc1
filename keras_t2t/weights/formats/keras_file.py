"""Reading `.weights.h5`, `.h5` and `.keras` files without building a model."""

import io
import json
import os
import pathlib
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from keras_t2t.keras_internals import CONFIG_IN_H5_FILE, CONFIG_IN_KERAS_FILE, H5_LAYERS, H5_MODEL, WEIGHTS_IN_KERAS_FILE
from keras_t2t.weights.formats.limits import check_expansion


def read_h5(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights of the layers in a `.weights.h5` file, or in an `.h5` file with a whole model.

    Args:
        path: Path of the file.

    Returns:
        The weights by their path in the file, such as `encoder_block_1/norm1/vars/0`. In a file with a whole model, it is the
        path of the weight in the model, such as `block1/norm1/gamma`.

    Raises:
        ValueError: If the file declares far more data than it contains, or refers to other files.
    """
    return _read_h5(path, pathlib.Path(path).stat().st_size)


def read_keras(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights of the layers in a `.keras` file.

    Args:
        path: Path of the file.

    Returns:
        The weights, with the same names as in `read_h5`.

    Raises:
        ValueError: If the file declares far more data than it contains, or refers to other files.
    """
    with zipfile.ZipFile(path) as archive:
        check_expansion(sum(info.file_size for info in archive.infolist()), pathlib.Path(path).stat().st_size)
        weights = archive.read(WEIGHTS_IN_KERAS_FILE)
    return _read_h5(io.BytesIO(weights), len(weights))


def layer_configs(path: str | os.PathLike, class_name: str) -> list[dict[str, Any]]:
    """Returns the configurations of all layers of one class in the model in a `.keras` file, or in an `.h5` file.

    There are none in a `.weights.h5` file.
    """
    layers = json.loads(_model_config(path)).get("config", {}).get("layers", [])
    # An `.h5` file has the name of the package before that of the class.
    return [layer["config"] for layer in layers if layer["class_name"].rpartition(">")[2] == class_name]


def _model_config(path):
    """Returns the configuration of the model in a file as JSON."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return archive.read(CONFIG_IN_KERAS_FILE)
    import h5py

    with h5py.File(path) as content:
        return content.attrs.get(CONFIG_IN_H5_FILE, "{}")


def _read_h5(file, size):
    """Reads a file of `size` bytes, given as a path or a binary stream."""
    import h5py

    datasets: dict[str, h5py.Dataset] = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            datasets[name] = item

    with h5py.File(file) as content:
        root = H5_MODEL if H5_MODEL in content else H5_LAYERS
        is_link = isinstance(content.get(root, getlink=True), h5py.ExternalLink)
        content[root].visititems(add)  # does not follow links to other files
        if is_link or any(item.external or item.is_virtual for item in datasets.values()):
            raise ValueError("it refers to data in other files")
        check_expansion(sum(item.nbytes for item in datasets.values()), size)
        arrays = {name: _with_dtype(item[()], item.attrs.get("dtype")) for name, item in datasets.items()}
        # In a whole model, the name of the layer comes before the path of the weight.
        return {name.partition("/")[2]: array for name, array in arrays.items()} if root == H5_MODEL else arrays


def _with_dtype(array, dtype):
    """Restores bfloat16, which Keras stores as raw bytes with an attribute for the dtype."""
    return array.view(ml_dtypes.bfloat16) if dtype == "bfloat16" and array.dtype.kind == "V" else array
