"""From a mapping of checkpoint entries to the weights of a model: check everything, then assign."""

from collections.abc import Mapping

import keras
import numpy as np

from keras_t2t.layers.position_embedding import resize_positions
from keras_t2t.models import config_of
from keras_t2t.weights.name_map import POSITIONS, Row, name_map


def load_checkpoint(model: keras.Model, source: Mapping[str, np.ndarray], *, position_grid: tuple[int, int] | None = None):
    """Loads a checkpoint of the authors' layout into a model of this package.

    All entries are checked before any weight changes. The entries of the head are skipped if the model has no head. A position
    table of another length is resized to the model's grid, as the reference does for fine-tuning at another image size.

    Args:
        model: a model with a T2T-ViT or the plain ViT of this package.
        source: arrays in PyTorch layout by the names of the reference implementation.
        position_grid: (rows, columns) of the source's position table. None stands for the model's own grid if the length fits
            it, and for a square otherwise: the published tables are square.

    Raises:
        ValueError: if the source is no mapping, if entries are missing, unexpected or of another shape (all are listed), or if
            the grid of the position table cannot be known.
    """
    if not isinstance(source, Mapping):
        raise ValueError(f"Expected a mapping of checkpoint names to arrays; received: source of type {type(source).__name__}")
    weights = _weights_by_path(model)
    head = weights.get("head/kernel")
    rows = name_map(
        config_of(model),
        positions=weights["position_embedding/table"].shape[0],
        channels=model.get_layer("tokens_to_token").channels,
        classes=None if head is None else head.shape[-1],
    )
    source = {name: np.asarray(array) for name, array in source.items()}
    if head is None:
        source = {name: array for name, array in source.items() if not name.startswith("head.")}
    positions = model.get_layer("position_embedding")
    if _is_table(source.get(POSITIONS), positions.table.shape[-1]):
        source[POSITIONS] = _fit_positions(source[POSITIONS], position_grid, positions.grid_size)
    _check(rows, source, model.name)
    for row in rows:
        weight = weights[row.target]
        weight.assign(row.convert(source[row.source]).reshape(weight.shape))


def _weights_by_path(model):
    """The weights of the model's layers by their path from the layer on, whatever the model was built inside of."""
    pairs = ((layer.name, weight) for layer in model.layers for weight in layer.weights)
    return {f"{name}/{weight.path.split(f'{name}/', 1)[1]}": weight for name, weight in pairs}


def _is_table(array, width):
    return array is not None and array.ndim == 3 and array.shape[0] == 1 and array.shape[2] == width


def _fit_positions(table, old_grid, new_grid):
    """Returns the table (1, 1 + h * w, D) for `new_grid`; a table of that grid comes back as it is."""
    length = table.shape[1] - 1
    if old_grid is None:
        side = round(length**0.5)
        old_grid = new_grid if length == new_grid[0] * new_grid[1] else (side, side)
    if old_grid[0] * old_grid[1] != length:
        raise ValueError(
            f"{POSITIONS}: expected a table of 1 + rows * columns entries; received {length + 1} entries for a grid of "
            f"{old_grid[0]}x{old_grid[1]}. Name the source's grid with position_grid=(rows, columns)"
        )
    if tuple(old_grid) == tuple(new_grid):
        return table
    return keras.ops.convert_to_numpy(resize_positions(table[0].astype("float32"), old_grid, new_grid))[None]


def _check(rows: list[Row], source: Mapping[str, np.ndarray], name: str):
    """Raises `ValueError` with all that does not fit between the rows and the source."""
    expected = {row.source: row.shape for row in rows}
    problems = [f"  missing: {entry} {shape}" for entry, shape in expected.items() if entry not in source]
    problems += [f"  unexpected: {entry} {source[entry].shape}" for entry in source if entry not in expected]
    problems += [
        f"  mis-shaped: {entry} expected {shape}, received {source[entry].shape}"
        for entry, shape in expected.items()
        if entry in source and source[entry].shape != shape
    ]
    if problems:
        raise ValueError("\n".join([f"The checkpoint does not fit the model {name!r}; nothing was loaded:", *problems]))
