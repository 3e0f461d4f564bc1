"""Reading a checkpoint in any supported format into a dictionary of arrays."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_t2t.errors import CheckpointError
from keras_t2t.keras_internals import H5_LAYERS
from keras_t2t.models.parts import BLOCK_CLASSES
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.weights.formats.arrays import read_npz, read_safetensors
from keras_t2t.weights.formats.keras_file import layer_configs, read_h5, read_keras
from keras_t2t.weights.formats.torch_file import read_torch_file

READERS: dict[str, Callable[[pathlib.Path], dict[str, np.ndarray]]] = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".h5": read_h5,
    ".keras": read_keras,
}
# Where a training state stores its weights. The moving average is preferred over the weights themselves.
ENTRIES = ("state_dict_ema", "state_dict", "model", "net")
PREFIXES = ("module.", "backbone.")  # added by DistributedDataParallel and by OpenMMLab
UNSEEN_SETTINGS = ("num_heads", "norm_epsilon", "soft_splits")
"""Settings of a `T2TConfig` that change what a model computes, but not the shapes of its weights."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights in a file or a mapping.

    Attributes:
        source: Path of the file, or `"a mapping"`.
        entry: Entry of the training state that was used, or `None` if the weights were at the top level.
        arrays: Weights by name, without the prefixes `module.` and `backbone.`.
        prefixes: Prefixes that were stripped.
        skipped: Names of duplicate weights. OpenMMLab's moving average adds them, named `ema_` plus the name of the weight with
            underscores. The averaged values are in the entry without `ema_`.
        position_grid: `(rows, columns)` of the position table, or `None` if the file does not contain it.
        preprocessing: How images are prepared for the saved model, or `None` if the file does not contain it.
        settings: The `UNSEEN_SETTINGS` of the saved model by name, as far as the file contains them.
    """

    source: str
    entry: str | None
    arrays: dict[str, np.ndarray]
    prefixes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    position_grid: tuple[int, int] | None = None
    preprocessing: Preprocessing | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read_checkpoint(source: str | os.PathLike | Mapping) -> Checkpoint:
    """Reads the weights in a checkpoint.

    Args:
        source: Mapping of names to arrays or tensors, as returned by `torch.load`, or the path of a file. Files ending in
            `.safetensors`, `.npz`, `.h5` (weights or a whole model) or `.keras` are read as such, and all others as files saved
            by `torch.save`.

    Returns:
        The weights, with information about where they were found.

    Raises:
        CheckpointError: If the file is damaged or in an unsupported format, or if it contains no weights, or a model inside
            another one.
        OSError: If the file cannot be opened.
        ImportError: If the file is a `.safetensors` file and safetensors is not installed.
    """
    if isinstance(source, Mapping):
        return _unwrap(source, "a mapping")
    if not isinstance(source, (str, os.PathLike)):
        raise CheckpointError(
            "Expected the path of a checkpoint or a mapping of checkpoint names to arrays; "
            f"received: source of type {type(source).__name__}"
        )
    path = pathlib.Path(source)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        return _unwrap(read_torch_file(path), str(path))
    path.open("rb").close()  # a missing file raises the usual error, no matter which library reads it
    try:
        checkpoint = _unwrap(READERS[suffix](path), str(path))
        if any(f"/{H5_LAYERS}/" in name for name in checkpoint.arrays):
            raise CheckpointError(
                f"{path} contains a model nested in another one. Save the inner model by itself, such as "
                'model.get_layer("NAME").save("inner.keras"), and pass that file'
            )
        return dataclasses.replace(checkpoint, **_saved_settings(path)) if suffix in (".keras", ".h5") else checkpoint
    except (ImportError, CheckpointError):
        raise
    except Exception as error:  # each library has its own exceptions
        raise CheckpointError(
            f"Cannot read {path}: it is damaged or not a valid {path.suffix} file ({error}). Save or download it again."
        ) from error


def _saved_settings(path):
    """Returns the position grid, the preprocessing and the `UNSEEN_SETTINGS` in a `.keras` file, or an `.h5` file with a model.

    The first two are `None` if there is not exactly one of them.
    """
    grids = [tuple(layer["grid_size"]) for layer in layer_configs(path, "PositionEmbedding")]
    kinds = ["TokensToToken", *(block.__name__ for block in BLOCK_CLASSES.values())]
    configs = [config for kind in kinds for config in layer_configs(path, kind)]
    records = [Preprocessing(**layer["preprocessing"]) for layer in layer_configs(path, "ImageNormalization")]
    return {
        "position_grid": grids[0] if len(grids) == 1 else None,
        "preprocessing": records[0] if len(records) == 1 else None,
        "settings": {name: config[name] for config in configs for name in UNSEEN_SETTINGS if name in config},
    }


def _unwrap(content, source):
    """Finds the weights in the contents of a file and strips the prefixes from their names."""
    entry, weights = None, content
    if isinstance(content, Mapping):
        entry = next((name for name in ENTRIES if _has_arrays(content.get(name))), None)
        weights = content if entry is None else content[entry]
    if not _has_arrays(weights):
        found = f"entries {', '.join(map(str, weights))}"[:200] if isinstance(weights, Mapping) else type(weights).__name__
        raise CheckpointError(
            f"Found no weights in {source}. Expected arrays by name, at the top level or in one of the entries {ENTRIES}; "
            f"received: {found}"
        )
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
            raise CheckpointError(
                f"The weight {short} is in {source} twice, with and without a prefix ({' or '.join(PREFIXES)}). "
                "Remove one of them."
            )
        arrays[short] = _to_numpy(value)
    skipped = tuple(str(name) for name in weights if name in copies)
    return Checkpoint(source, entry, arrays, tuple(dict.fromkeys(prefixes)), skipped)


def _has_arrays(value):
    return isinstance(value, Mapping) and any(_is_array(item) for item in value.values())


def _is_array(value):
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _to_numpy(value: Any) -> np.ndarray:
    """Converts an array from any library to NumPy. Any other object becomes a non-numeric array."""
    if not _is_array(value):
        return np.empty((), object)
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
