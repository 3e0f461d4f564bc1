"""The state of a training on disk: written in one step, held to its checksums, the one before kept."""

import json
import os
import pathlib
import re
import warnings

import keras
import numpy as np

KEPT = 2


def save_state(folder: pathlib.Path, model: keras.Model, epochs: int, history: list[dict]):
    """Writes weights, optimizer, moving average and random states after a number of epochs; removes all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{epochs:05d}.npz"
    arrays = {key: keras.ops.convert_to_numpy(variable.value) for key, variable in _variables(model).items()}
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        np.savez(file, history=np.frombuffer(json.dumps(history).encode(), "uint8"), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    for old in _states(folder)[KEPT:]:
        old.unlink()


def restore_state(folder: pathlib.Path, model: keras.Model) -> tuple[int, list[dict]]:
    """Puts a model and its optimizer into the newest state that can be read.

    Returns:
        The epochs that were finished, and the history; 0 and an empty one if there is no state.

    Raises:
        ValueError: if a state is of another model or optimizer.
    """
    for path in _states(folder):
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)  # reads and checks everything before anything is assigned
            history = json.loads(arrays.pop("history").tobytes())
        except Exception as error:  # of zip, numpy or JSON
            warnings.warn(f"{path} is damaged and was not used ({error})", stacklevel=2)
            continue
        variables = _variables(model)
        wrong = list(set(arrays) ^ set(variables))
        wrong += [key for key in set(arrays) & set(variables) if arrays[key].shape != tuple(variables[key].shape)]
        if wrong:
            raise ValueError(
                f"{path} is the state of another training: {len(wrong)} of its variables differ, such as {sorted(wrong)[0]}"
            )
        for key, variable in variables.items():
            variable.assign(arrays[key])
        return len(history), history
    return 0, []


def _variables(model):
    """All that a training changes, by number and path, without the counters that Keras puts into some names."""
    variables = [*model.variables, *model.optimizer.variables]
    paths = [re.sub(r"_\d+(?=/|$)", "", variable.path).replace("/", ".") for variable in variables]
    return {f"{i:05d} {path}": variable for i, (path, variable) in enumerate(zip(paths, variables, strict=True))}


def last_state(output: pathlib.Path) -> str:
    """Returns the path of the newest state of a training, or `"none"`."""
    states = _states(output / "checkpoints")
    return str(states[0]) if states else "none"


def _states(folder):
    """The states in a folder, the newest first."""
    return sorted((path for path in folder.glob("epoch-*.npz") if re.fullmatch(r"epoch-\d+\.npz", path.name)), reverse=True)
