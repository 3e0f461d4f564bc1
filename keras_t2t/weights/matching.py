"""Holding the entries of a checkpoint to what a model expects: names, shapes, and the grid of the position table."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from keras_t2t.configs import T2TConfig
from keras_t2t.errors import CheckpointError
from keras_t2t.models.parts import HEAD
from keras_t2t.weights.names import LAYOUTS, POSITIONS, Row, name_map


@dataclasses.dataclass(frozen=True)
class Match:
    """A checkpoint that fits.

    Attributes:
        layout: the layout of its names, one of `LAYOUTS`.
        rows: a row for every weight to load.
        position_grid: (rows, columns) of its position table.
        skipped: its entries that were not to be loaded.
    """

    layout: str
    rows: list[Row]
    position_grid: tuple[int, int]
    skipped: list[str]


def match(
    arrays: Mapping[str, np.ndarray],
    config: T2TConfig,
    grid_size: tuple[int, int],
    channels: int = 3,
    classes: int | None = 1000,
    position_grid: tuple[int, int] | None = None,
) -> Match:
    """Returns how a checkpoint fits a model.

    Args:
        arrays: the entries of the checkpoint.
        config: the model.
        grid_size: (rows, columns) of the model's tokens.
        channels: channels of the model's images.
        classes: outputs of the model's head. None if there is no head to load: entries of one are then skipped.
        position_grid: (rows, columns) of the checkpoint's position table, None for the one grid that fits: that of the model
            or a square.

    Raises:
        CheckpointError: if entries are missing, unexpected, of another shape or no numbers, or if the grid of the position
            table is not known; all of them are listed.
    """

    def name_map_of(layout, classes):
        return name_map(config, 1 + math.prod(grid_size), channels, classes, layout)

    layout = layout_of(arrays, config)
    rows = name_map_of(layout, classes)
    head = {row.source for row in name_map_of(layout, 1)} - {row.source for row in name_map_of(layout, None)}
    skipped = sorted(head.intersection(arrays)) if classes is None else []
    positions = next(row for row in rows if row.target == POSITIONS)
    if layout == "keras" and position_grid is None and positions.shape == getattr(arrays.get(positions.source), "shape", None):
        position_grid = grid_size  # most likely a file of this very model
    grid = _grid_of(arrays.get(positions.source), positions, grid_size, position_grid)
    _check(rows, {name: array for name, array in arrays.items() if name not in skipped}, grid)
    return Match(layout, rows, grid, skipped)


def layout_of(names, config: T2TConfig) -> str:
    """Returns the one of `LAYOUTS` that most of the names are of."""
    return max(LAYOUTS, key=lambda layout: sum(row.source in names for row in name_map(config, 2, classes=1, layout=layout)))


def _grid_of(table, row, grid_size, position_grid):
    """Returns the grid of a position table, the class token's entry first, or None if it cannot be known."""
    if table is None or table.ndim != len(row.shape):
        return None
    *batch, length, width = table.shape
    if (*batch, width) != (*row.shape[:-2], row.shape[-1]) or length < 2:
        return None
    side = math.isqrt(length - 1)
    candidates = {(side, side)} | ({tuple(grid_size)} if length == row.shape[-2] else set())
    if position_grid is not None:
        candidates = {tuple(position_grid)}
    fitting = [grid for grid in candidates if math.prod(grid) == length - 1]
    return fitting[0] if len(fitting) == 1 else None


def _check(rows, arrays, grid):
    """Raises with all that does not fit between the rows and the entries."""
    expected = {row.source: row for row in rows}
    problems = [f"  missing: {name} {row.shape}" for name, row in expected.items() if name not in arrays]
    problems += [f"  unexpected: {name} {array.shape}" for name, array in arrays.items() if name not in expected]
    for name in (name for name in expected if name in arrays):
        array, row = arrays[name], expected[name]
        if row.target == POSITIONS and grid is None:
            hint = " of a grid that is not known: name it with load_checkpoint(..., position_grid=(rows, columns))"
            hint = hint if array.shape[-1:] == row.shape[-1:] else ""
            problems.append(f"  mis-shaped: {name} expected {row.shape}, received {array.shape}{hint}")
        elif row.target != POSITIONS and array.shape != row.shape:
            problems.append(f"  mis-shaped: {name} expected {row.shape}, received {array.shape}")
        elif not _is_real(array.dtype):
            problems.append(f"  not numbers: {name}")
    if any(
        arrays[name].shape != row.shape
        for name, row in expected.items()
        if name in arrays and row.target.startswith(f"{HEAD}/")
    ):
        problems.append("  for other classes: load_checkpoint(..., skip_head=True), or keras_t2t.replace_head afterwards")
    if problems:
        raise CheckpointError("\n".join(problems))


def _is_real(dtype) -> bool:
    return dtype.kind in "fiu" or dtype.name == "bfloat16"
