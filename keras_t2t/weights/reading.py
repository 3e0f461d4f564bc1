"""Reading a checkpoint of any supported format into a flat mapping of names to arrays."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from keras_t2t.errors import CheckpointError
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.weights.formats.arrays import read_npz, read_safetensors
from keras_t2t.weights.formats.keras_file import layer_configs, read_h5, read_keras
from keras_t2t.weights.formats.torch_file import read_torch_file

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
        prefixes: those of the prefixes that were there.
        skipped: second copies of weights, which OpenMMLab's moving average leaves under the name `ema_` and the weight's with
            underscores; the weight itself is the average.
        position_grid: `(rows, columns)` of the position table, if the file says so.
        preprocessing: How images are prepared for the saved model, if the file says so.
    """

    source: str
    entry: str | None
    arrays: dict[str, np.ndarray]
    prefixes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    position_grid: tuple[int, int] | None = None
    preprocessing: Preprocessing | None = None


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
    readers = {".safetensors": read_safetensors, ".npz": read_npz, ".h5": read_h5, ".keras": read_keras}
    if path.suffix not in readers:
        return _unwrap(read_torch_file(path), str(path))
    path.open("rb").close()  # the libraries raise all sorts of errors for a file that is not there
    try:
        checkpoint = _unwrap(readers[path.suffix](path), str(path))
        return dataclasses.replace(checkpoint, **_saved_settings(path)) if path.suffix == ".keras" else checkpoint
    except (ImportError, CheckpointError):
        raise
    except Exception as error:  # as many kinds as there are libraries
        raise CheckpointError(f"Cannot read {path}: it is damaged or no {path.suffix} file ({error})") from error


def _saved_settings(path):
    """Returns the grid of positions and the preprocessing in the model of a `.keras` file, `None` where it is not clear."""
    grids = [tuple(layer["grid_size"]) for layer in layer_configs(path, "PositionEmbedding")]
    records = [Preprocessing(**layer["preprocessing"]) for layer in layer_configs(path, "ImageNormalization")]
    return {
        "position_grid": grids[0] if len(grids) == 1 else None,
        "preprocessing": records[0] if len(records) == 1 else None,
    }


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
