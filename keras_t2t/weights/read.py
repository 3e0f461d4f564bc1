"""Reading a checkpoint of any supported format into a flat mapping of names to arrays."""

import dataclasses
import io
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from keras_t2t.weights.errors import CheckpointError
from keras_t2t.weights.torch_file import read_torch_file

# Where a training state keeps its weights, the most wanted first: the moving average of the weights, then the weights.
ENTRIES = ("state_dict_ema", "state_dict", "model", "net")
PREFIXES = ("module.", "backbone.")  # of DistributedDataParallel, of OpenMMLab


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights in a file or a mapping.

    Attributes:
        source: path of the file, or "a mapping".
        entry: the entry of the training state that was used; None if the weights stood at the top.
        arrays: the weights by name, without the prefixes `module.` and `backbone.`.
    """

    source: str
    entry: str | None
    arrays: dict[str, np.ndarray]


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
        return _unwrap(readers[path.suffix](path), str(path))
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
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read_keras(path):
    with zipfile.ZipFile(path) as archive:
        return _read_h5(io.BytesIO(archive.read("model.weights.h5")))


def _read_h5(path):
    """The weights of the layers by their place in the file, such as `encoder_block_1/norm1/vars/0`."""
    import h5py

    arrays = {}
    with h5py.File(path) as file:
        file["layers"].visititems(
            lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return arrays


def _unwrap(content, source):
    """Finds the weights in what a file holds and strips the prefixes of their names."""
    entry = None
    if isinstance(content, Mapping):
        entry = next((name for name in ENTRIES if isinstance(content.get(name), Mapping)), None)
    weights = content if entry is None else content[entry]
    if not isinstance(weights, Mapping) or not any(_is_array(value) for value in weights.values()):
        found = f"the entries {', '.join(map(str, weights))}"[:200] if isinstance(weights, Mapping) else type(weights).__name__
        raise CheckpointError(f"Found no weights in {source}: expected arrays by name, bare or under {ENTRIES}; found: {found}")
    arrays = {}
    for name, value in weights.items():
        short = str(name)
        for prefix in PREFIXES:
            short = short.removeprefix(prefix)
        if short in arrays:
            raise CheckpointError(f"{source} has the weight {short} twice, with and without a prefix of {PREFIXES}")
        arrays[short] = np.asarray(value) if _is_array(value) else np.empty((), object)
    return Checkpoint(source, entry, arrays)


def _is_array(value) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")
