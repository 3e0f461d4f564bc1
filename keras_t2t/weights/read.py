"""Reading a checkpoint of any supported format into a flat mapping of names to arrays."""

import dataclasses
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from keras_t2t.weights.errors import CheckpointError
from keras_t2t.weights.torch_file import read_torch_file

# Where a training state keeps its weights, the most wanted first: the moving average of the weights, then the weights.
ENTRIES = ("state_dict_ema", "state_dict", "model", "net")
MAX_EXPANSION = 10
PREFIXES = ("module.", "backbone.")  # of DistributedDataParallel, of OpenMMLab


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights in a file or a mapping.

    Attributes:
        source: path of the file, or "a mapping".
        entry: the entry of the training state that was used; None if the weights stood at the top.
        arrays: the weights by name, without the prefixes `module.` and `backbone.`.
        prefixes: those of the prefixes that were there.
        skipped: second copies of weights, which OpenMMLab's moving average leaves under the name `ema_` and the weight's with
            underscores; the weight itself is the average.
        position_grid: (rows, columns) of the position table, where the file says it.
    """

    source: str
    entry: str | None
    arrays: dict[str, np.ndarray]
    prefixes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    position_grid: tuple[int, int] | None = None


def read_checkpoint(source: str | os.PathLike | Mapping) -> Checkpoint:
    """Reads the weights of a checkpoint.

    Args:
        source: a mapping, as `torch.load` returns it, or the path of a `.safetensors`, `.npz`, `.weights.h5` or `.keras` file,
            or, under any other name, of a file of `torch.save`.

    Raises:
        CheckpointError: if the file is damaged or of another format, or if there are no weights in it.
        OSError: if the file cannot be opened.
        ImportError: for `.safetensors` if the library safetensors is not installed.
    """
    if isinstance(source, Mapping):
        return _unwrap(source, "a mapping")
    if not isinstance(source, (str, os.PathLike)):
        raise CheckpointError(
            "Expected the path of a checkpoint or a mapping of checkpoint names to arrays; "
            f"received: source of type {type(source).__name__}"
        )
    path = pathlib.Path(source)
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz, ".h5": _read_h5, ".keras": _read_keras}
    if path.suffix not in readers:
        return _unwrap(read_torch_file(path), str(path))
    path.open("rb").close()  # the libraries raise all sorts of errors for a file that is not there
    try:
        checkpoint = _unwrap(readers[path.suffix](path), str(path))
        return dataclasses.replace(checkpoint, position_grid=_grid_in(path)) if path.suffix == ".keras" else checkpoint
    except (ImportError, CheckpointError):
        raise
    except Exception as error:  # as many kinds as there are libraries
        raise CheckpointError(f"Cannot read {path}: it is damaged or no {path.suffix} file ({error})") from error


def _read_safetensors(path):
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError('Reading .safetensors files needs safetensors: pip install "keras-t2t[safetensors]"') from error
    return safetensors.numpy.load_file(path)


def _read_npz(path):
    with zipfile.ZipFile(path) as archive:
        _check_expansion(sum(info.file_size for info in archive.infolist()), path.stat().st_size)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read_keras(path):
    with zipfile.ZipFile(path) as archive:
        _check_expansion(sum(info.file_size for info in archive.infolist()), path.stat().st_size)
        weights = archive.read("model.weights.h5")
    return _read_h5(io.BytesIO(weights), len(weights))


def _grid_in(path):
    """The grid of positions in the configuration of a saved model, None if there is no such layer or more than one."""
    with zipfile.ZipFile(path) as archive:
        layers = json.loads(archive.read("config.json"))["config"].get("layers", [])
    grids = [tuple(layer["config"]["grid_size"]) for layer in layers if layer["class_name"] == "PositionEmbedding"]
    return grids[0] if len(grids) == 1 else None


def _read_h5(file, size=None):
    """The weights of the layers by their place in the file, such as `encoder_block_1/norm1/vars/0`."""
    import h5py

    datasets, outside = {}, []

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            datasets[name] = item
            outside.append(item.external or item.is_virtual)

    with h5py.File(file) as content:
        outside.append(isinstance(content.get("layers", getlink=True), h5py.ExternalLink))
        content["layers"].visititems(add)  # which follows no links to other files
        if any(outside):
            raise ValueError("it has data in other files")
        _check_expansion(sum(item.nbytes for item in datasets.values()), size or file.stat().st_size)
        return {name: _with_type(item[()], item.attrs.get("dtype")) for name, item in datasets.items()}


def _with_type(array, name):
    """Keras keeps bfloat16 as bytes, and its name beside them."""
    return array.view(ml_dtypes.bfloat16) if name == "bfloat16" and array.dtype.kind == "V" else array


def _check_expansion(size, file_size):
    """Weights hardly compress; what declares far more than it holds is not made of them."""
    if size > MAX_EXPANSION * file_size + 2**20:
        raise ValueError(f"it declares {size} bytes in a file of {file_size}")


def _unwrap(content, source):
    """Finds the weights in what a file holds and strips the prefixes of their names."""
    entry, weights = None, content
    if isinstance(content, Mapping):
        entry = next((name for name in ENTRIES if _has_arrays(content.get(name))), None)
        weights = content if entry is None else content[entry]
    if not _has_arrays(weights):
        found = f"the entries {', '.join(map(str, weights))}"[:200] if isinstance(weights, Mapping) else type(weights).__name__
        raise CheckpointError(f"Found no weights in {source}: expected arrays by name, bare or under {ENTRIES}; found: {found}")
    copies = {"ema_" + str(name).replace(".", "_") for name in weights}
    arrays, prefixes = {}, []
    for name, value in weights.items():
        if name in copies:
            continue
        short = str(name)
        while prefix := next((prefix for prefix in PREFIXES if short.startswith(prefix)), None):
            short = short.removeprefix(prefix)
            prefixes.append(prefix)
        if short in arrays:
            raise CheckpointError(f"{source} has the weight {short} twice, with and without a prefix of {PREFIXES}")
        arrays[short] = _as_array(value)
    skipped = tuple(str(name) for name in weights if name in copies)
    return Checkpoint(source, entry, arrays, tuple(dict.fromkeys(prefixes)), skipped)


def _has_arrays(value) -> bool:
    return isinstance(value, Mapping) and any(_is_array(item) for item in value.values())


def _is_array(value) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _as_array(value) -> np.ndarray:
    """An array of numpy, of PyTorch or of another library; what is no array becomes one without numbers."""
    if not _is_array(value):
        return np.empty((), object)
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
