"""The state of a training run on disk: written atomically, protected by checksums, with the previous state as a backup."""

import json
import os
import pathlib
import re
import warnings

import keras
import numpy as np

from keras_t2t.run_files import CHECKPOINTS, replacing

MAX_TO_KEEP = 2


def save_state(folder: pathlib.Path, model: keras.Model, epochs: int, history: list[dict]) -> None:
    """Saves the weights, the optimizer, the moving averages, and the random states. Only the last two states are kept.

    Args:
        folder: Folder of the checkpoints. It is created if needed.
        model: Compiled model.
        epochs: Number of finished epochs.
        history: Logs of these epochs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{epochs:05d}.npz"
    arrays = {key: keras.ops.convert_to_numpy(variable.value) for key, variable in _variables(model).items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, history=np.frombuffer(json.dumps(history).encode(), "uint8"), **arrays)
        file.flush()
        os.fsync(file.fileno())
    for old in _states(folder)[MAX_TO_KEEP:]:
        old.unlink()


def restore_state(folder: pathlib.Path, model: keras.Model) -> tuple[int, list[dict]]:
    """Restores a model and its optimizer from the newest readable state.

    Args:
        folder: Folder of the checkpoints.
        model: Compiled model.

    Returns:
        The number of finished epochs and their logs; `(0, [])` if there is no state.

    Raises:
        ValueError: If the state belongs to a different model or optimizer.
    """
    for path in _states(folder):
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)  # reads and verifies everything before anything is assigned
            history = json.loads(arrays.pop("history").tobytes())
        except Exception as error:  # zip, NumPy, and JSON raise many kinds
            warnings.warn(f"{path} is damaged and was skipped ({error})", stacklevel=2)
            continue
        variables = _variables(model)
        mismatched = list(set(arrays) ^ set(variables))
        mismatched += [key for key in set(arrays) & set(variables) if arrays[key].shape != tuple(variables[key].shape)]
        if mismatched:
            raise ValueError(
                f"{path} is from a different training run: {len(mismatched)} of its variables do not match, such as "
                f"{sorted(mismatched)[0]}"
            )
        for key, variable in variables.items():
            variable.assign(arrays[key])
        return len(history), history
    return 0, []


def _variables(model):
    """Returns all variables of a training run by index and path, without the counters that Keras adds to some names."""
    variables = [*model.variables, *model.optimizer.variables]
    paths = [re.sub(r"_\d+(?=/|$)", "", variable.path).replace("/", ".") for variable in variables]
    return {f"{i:05d} {path}": variable for i, (path, variable) in enumerate(zip(paths, variables, strict=True))}


def last_state(output: pathlib.Path) -> str:
    """Returns the path of the newest state of a training run, or `"none"`."""
    states = _states(output / CHECKPOINTS)
    return str(states[0]) if states else "none"


def finished_epochs(output: pathlib.Path) -> int:
    """Returns the number of epochs that a training run has finished, according to its newest state."""
    states = _states(output / CHECKPOINTS)
    return int(states[0].stem.removeprefix("epoch-")) if states else 0


def _states(folder):
    """Returns the states in a folder, newest first."""
    return sorted((path for path in folder.glob("epoch-*.npz") if re.fullmatch(r"epoch-\d+\.npz", path.name)), reverse=True)
