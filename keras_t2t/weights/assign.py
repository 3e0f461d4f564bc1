"""From a mapping of checkpoint entries to the weights of a model: check everything, then assign."""

import math
from collections.abc import Mapping

import keras
import numpy as np

from keras_t2t.layers.position_embedding import resize_positions
from keras_t2t.models import config_of
from keras_t2t.weights.name_map import POSITIONS, Row, name_map


def load_checkpoint(model: keras.Model, source: Mapping[str, np.ndarray], *, position_grid: tuple[int, int] | None = None):
    """Loads a checkpoint of the authors' layout into a model of this package.

    All entries are checked before any weight changes. The entries of the head are skipped if the model has no head. A position
    table of another grid is resized to the model's, as the reference does for fine-tuning at another image size.

    Args:
        model: a model with a T2T-ViT or the plain ViT of this package.
        source: arrays in PyTorch layout by the names of the reference implementation.
        position_grid: (rows, columns) of the source's position table. None stands for the one grid that fits its length: that
            of the model or a square, as the published tables are.

    Raises:
        ValueError: if the model or the source is of another kind, or if entries are missing, unexpected, of another shape, or a
            position table of a grid that is not known; all are listed.
    """
    config = config_of(model)
    if not isinstance(source, Mapping):
        raise ValueError(f"Expected a mapping of checkpoint names to arrays; received: source of type {type(source).__name__}")
    source = {str(name): np.asarray(array) for name, array in source.items()}
    layers = {layer.name: layer for layer in model.layers}
    positions, head = layers["position_embedding"], layers.get("head")
    if head is None:
        source = {name: array for name, array in source.items() if not name.startswith("head.")}
    rows = name_map(config, positions.table.shape[0], layers["tokens_to_token"].channels, head and head.units)
    grid = _grid_of(source.get(POSITIONS), position_grid, positions)
    if grid not in (None, positions.grid_size):
        resized = resize_positions(source[POSITIONS][0].astype("float32"), grid, positions.grid_size)
        source[POSITIONS] = keras.ops.convert_to_numpy(resized)[None]
    _check(rows, source, model.name, grid)
    weights = _weights_by_path(layers[name] for name in {row.target.split("/")[0] for row in rows})
    for row in rows:
        weight = weights[row.target]
        weight.assign(row.convert(source[row.source]).reshape(weight.shape))


def _weights_by_path(layers):
    """The weights of layers by their path from the layer on, whatever the model was built inside of."""
    return {layer.name + weight.path.removeprefix(layer.path): weight for layer in layers for weight in layer.weights}


def _grid_of(table, position_grid, positions):
    """Returns the grid of a position table (1, 1 + h * w, D) for the layer `positions`, or None if it cannot be known."""
    length, width = positions.table.shape
    if table is None or table.ndim != 3 or table.shape[::2] != (1, width) or table.shape[1] < 2:
        return None
    side = math.isqrt(table.shape[1] - 1)
    candidates = {(side, side)} | ({positions.grid_size} if table.shape[1] == length else set())
    if position_grid is not None:
        candidates = {tuple(position_grid)}
    fitting = [grid for grid in candidates if math.prod(grid) == table.shape[1] - 1]
    return fitting[0] if len(fitting) == 1 else None


def _check(rows: list[Row], source: Mapping[str, np.ndarray], name: str, grid):
    """Raises `ValueError` with all that does not fit between the rows and the source."""
    expected = {row.source: row.shape for row in rows}
    problems = [f"  missing: {entry} {shape}" for entry, shape in expected.items() if entry not in source]
    problems += [f"  unexpected: {entry} {source[entry].shape}" for entry in source if entry not in expected]
    for entry in (entry for entry in expected if entry in source):
        array, shape = source[entry], expected[entry]
        if entry == POSITIONS and grid is None:
            hint = " of a grid that is not known: name it with position_grid=(rows, columns)"
            hint = hint if array.shape[-1:] == shape[-1:] else ""
            problems.append(f"  mis-shaped: {entry} expected {shape}, received {array.shape}{hint}")
        elif array.shape != shape:
            problems.append(f"  mis-shaped: {entry} expected {shape}, received {array.shape}")
        elif array.dtype == object:
            problems.append(f"  not numbers: {entry}")
    if problems:
        raise ValueError("\n".join([f"The checkpoint does not fit the model {name!r}; nothing was loaded:", *problems]))
