"""From a checkpoint to the weights of a model: check everything, then assign."""

import dataclasses
import os
from collections.abc import Mapping

import keras
import numpy as np

from keras_t2t.configs import is_count
from keras_t2t.errors import CheckpointError
from keras_t2t.layers.position_embedding import resize_positions
from keras_t2t.models import parts
from keras_t2t.models.parts import config_of, head_of
from keras_t2t.weights.matching import match
from keras_t2t.weights.names import POSITIONS
from keras_t2t.weights.reading import read_checkpoint


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What `load_checkpoint` did; `str` puts it in a line.

    Attributes:
        source: path of the file, or "a mapping".
        entry: the entry of a training state that was used, such as `"state_dict_ema"`; None if the weights stood at the top.
        prefixes: prefixes that were taken off the names, such as `"module."`.
        layout: whose names the weights have: `"authors"`, `"openmmlab"` or `"keras"`.
        loaded: number of weights that were loaded.
        resized: the weights that were resized: the position table, or none.
        skipped: entries of the checkpoint that were not loaded: a head, because the model has none or `skip_head` asked for it,
            and the second copies of all weights that OpenMMLab's moving average leaves.
    """

    source: str
    entry: str | None
    prefixes: tuple[str, ...]
    layout: str
    loaded: int
    resized: tuple[str, ...]
    skipped: tuple[str, ...]

    def __str__(self):
        text = f"{self.loaded} weights from {self.source}"
        text += f", entry {self.entry}" if self.entry else ""
        text += f", prefix {' '.join(self.prefixes)}" if self.prefixes else ""
        text += f", in the layout of {self.layout}"
        text += f"; resized {', '.join(self.resized)}" if self.resized else ""
        return text + (f"; skipped {', '.join(self.skipped)}" if self.skipped else "")


def load_checkpoint(
    model: keras.Model,
    source: str | os.PathLike | Mapping[str, np.ndarray],
    *,
    skip_head: bool = False,
    position_grid: tuple[int, int] | None = None,
) -> LoadReport:
    """Loads a checkpoint into a model of this package.

    All entries are checked before any weight changes. The entries of the head are skipped if the model has no head. A position
    table of another grid is resized to the model's, as the reference does for fine-tuning at another image size.

    Reading needs no PyTorch and runs nothing that is in the file.

    Args:
        model: a model with a T2T-ViT or the plain ViT of this package.
        source: a file of `torch.save`, `.safetensors`, `.npz`, `.weights.h5` or `.keras`, or a mapping of names to arrays: in
            the layout of the authors (for the plain ViT also that of timm and DeiT), of OpenMMLab, or of Keras; bare or in a
            training state, of which `state_dict_ema` is used before `state_dict`, `model` and `net`; with or without the
            prefixes `module.` and `backbone.`; of any floating point type.
        skip_head: whether to leave the head of the model as it is, for a checkpoint of other classes.
        position_grid: (rows, columns) of the source's position table. None stands for that in a `.keras` file, or the one
            grid that fits its length: that of the model or a square, as the published tables are.

    Returns:
        What was loaded.

    Raises:
        CheckpointError: a `ValueError`, if the file is damaged or of an unknown format, or if entries are missing, unexpected,
            of another shape, or a position table of a grid that is not known; all are listed.
        ValueError: if the model is of another kind.
        OSError: if the file cannot be opened.
    """
    config = config_of(model)
    if position_grid is not None and not (len(position_grid) == 2 and all(map(is_count, position_grid))):
        raise ValueError(f"`position_grid` should be (rows, columns). Received: position_grid={position_grid!r}")
    checkpoint = read_checkpoint(source)
    position_grid = position_grid or checkpoint.position_grid
    layers = {layer.name: layer for layer in model.layers}
    positions, head = layers[parts.POSITION_EMBEDDING], head_of(model)
    classes = None if head is None or skip_head else head.units
    channels = layers[parts.TOKENS_TO_TOKEN].channels
    try:
        fit = match(checkpoint.arrays, config, positions.grid_size, channels, classes, position_grid)
    except CheckpointError as error:
        raise CheckpointError(
            f"The checkpoint does not fit the model {model.name!r}; nothing was loaded from {checkpoint.source}:\n{error}"
        ) from None
    weights = _weights_by_path(layers[name] for name in {row.target.split("/")[0] for row in fit.rows})
    arrays, resized = checkpoint.arrays, ()
    if fit.position_grid != positions.grid_size:
        row = next(row for row in fit.rows if row.target == POSITIONS)
        table = arrays[row.source].reshape(arrays[row.source].shape[-2:]).astype("float32")
        table = keras.ops.convert_to_numpy(resize_positions(table, fit.position_grid, positions.grid_size))
        arrays, resized = {**arrays, row.source: table.reshape(row.shape)}, (row.source,)
    for row in fit.rows:
        weights[row.target].assign(row.convert(arrays[row.source]))
    skipped = (*checkpoint.skipped, *fit.skipped)
    return LoadReport(
        checkpoint.source, checkpoint.entry, checkpoint.prefixes, fit.layout, len(fit.rows), resized, tuple(skipped)
    )


def _weights_by_path(layers):
    """The weights of layers by their path from the layer on, whatever the model was built inside of."""
    return {layer.name + weight.path.removeprefix(layer.path): weight for layer in layers for weight in layer.weights}
