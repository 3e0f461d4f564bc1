"""Matching a checkpoint against a model: names, shapes, and the grid of the position table."""

import dataclasses
import math
from collections.abc import Container, Mapping

import numpy as np

from keras_t2t.configs import T2TConfig
from keras_t2t.errors import CheckpointError
from keras_t2t.models.parts import HEAD
from keras_t2t.weights.names import KERAS_LAYOUTS, LAYOUTS, POSITIONS, Row, name_map


@dataclasses.dataclass(frozen=True)
class Match:
    """How a checkpoint fits a model.

    Attributes:
        layout: Naming scheme of the entries, one of `LAYOUTS`.
        rows: One row per weight to load.
        position_grid: `(rows, columns)` of the checkpoint's position table.
        skipped: Names of the entries that are not loaded.
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
    """Matches a checkpoint against a model.

    Args:
        arrays: Entries of the checkpoint.
        config: Configuration of the model.
        grid_size: `(rows, columns)` of the model's tokens.
        channels: Number of channels of the model's images.
        classes: Number of outputs of the model's head. With `None`, the entries of the head are skipped.
        position_grid: `(rows, columns)` of the checkpoint's position table. With `None`, it is the only grid that fits: either
            the grid of the model or a square one.

    Returns:
        A `Match` that describes how the checkpoint fits the model.

    Raises:
        CheckpointError: If entries are missing, unexpected, not numeric or of the wrong shape, or if the grid of the position
            table is unknown. The message lists all problems.
    """
    layout = layout_of(arrays, config)

    def rows_for(classes):
        rows = name_map(config, 1 + math.prod(grid_size), channels, classes, layout)
        return _with_own_head(rows, arrays) if layout in KERAS_LAYOUTS else rows

    rows = rows_for(classes)
    head = {row.source for row in rows_for(1) if row.target.startswith(f"{HEAD}/")}
    skipped = sorted(head.intersection(arrays)) if classes is None else []
    positions = next(row for row in rows if row.target == POSITIONS)
    has_own_shape = positions.shape == getattr(arrays.get(positions.source), "shape", None)
    if layout in KERAS_LAYOUTS and position_grid is None and has_own_shape:
        position_grid = grid_size  # most likely saved from a model with the same grid
    grid = _find_grid(arrays.get(positions.source), positions, grid_size, position_grid)
    if problems := _problems(rows, {name: array for name, array in arrays.items() if name not in skipped}, grid):
        raise CheckpointError("\n".join(problems))
    return Match(layout, rows, grid, skipped)


def _with_own_head(rows, arrays):
    """Returns the rows for a file saved by Keras, in which the layer of the head may have any name."""
    backbone = {row.source.partition("/")[0] for row in rows if not row.target.startswith(f"{HEAD}/")}
    others = {name.partition("/")[0] for name in arrays} - backbone
    if len(others) != 1:
        return rows
    (own,) = others

    def renamed(row):
        return dataclasses.replace(row, source=f"{own}/{row.source.partition('/')[2]}")

    return [renamed(row) if row.target.startswith(f"{HEAD}/") else row for row in rows]


def layout_of(names: Container[str], config: T2TConfig) -> str:
    """Returns the member of `LAYOUTS` that most of the names match."""
    return max(LAYOUTS, key=lambda layout: sum(row.source in names for row in name_map(config, 2, classes=1, layout=layout)))


def _find_grid(table, row, grid_size, position_grid):
    """Returns the grid of a position table that starts with the class token's entry, or `None` if it is unknown."""
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


def _problems(rows, arrays, grid):
    """Returns a line for each mismatch between the rows and the entries."""
    expected = {row.source: row for row in rows}
    problems = [f"  missing: {name} {row.shape}" for name, row in expected.items() if name not in arrays]
    problems += [f"  unexpected: {name} {array.shape}" for name, array in arrays.items() if name not in expected]
    other_head = False
    for name, row in expected.items():
        if name not in arrays:
            continue
        array = arrays[name]
        wrong_shape = f"  wrong shape: {name} expected {row.shape}, received {array.shape}"
        if row.target == POSITIONS and grid is None:
            hint = ", whose grid is unknown; pass position_grid=(rows, columns) to load_checkpoint"
            problems.append(wrong_shape + (hint if array.shape[-1:] == row.shape[-1:] else ""))
        elif row.target != POSITIONS and array.shape != row.shape:
            problems.append(wrong_shape)
            other_head = other_head or row.target.startswith(f"{HEAD}/")
        elif not _is_real(array.dtype):
            problems.append(f"  not numeric: {name}")
    if other_head:
        problems.append(
            "If the checkpoint has other classes, pass skip_head=True to load_checkpoint, or build the model with as many "
            "classes as the checkpoint has, load it, and call keras_t2t.replace_head."
        )
    return problems


def _is_real(dtype):
    return dtype.kind in "fiu" or dtype.name == "bfloat16"
