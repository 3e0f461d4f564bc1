"""Reading `.safetensors` and `.npz` files."""

import os
import pathlib
import zipfile

import numpy as np

from keras_t2t.extras import import_extra
from keras_t2t.weights.formats.limits import check_expansion


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a `.safetensors` file.

    Args:
        path: Path of the file.

    Returns:
        The arrays by name.

    Raises:
        ImportError: If safetensors is not installed.
    """
    return import_extra("safetensors.numpy", "Reading .safetensors files requires safetensors", "safetensors").load_file(path)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file.

    Args:
        path: Path of the file.

    Returns:
        The arrays by name.

    Raises:
        ValueError: If the file declares far more data than it contains, or contains Python objects.
    """
    with zipfile.ZipFile(path) as archive:
        check_expansion(sum(info.file_size for info in archive.infolist()), pathlib.Path(path).stat().st_size)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
