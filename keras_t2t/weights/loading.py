"""Loading a checkpoint into a model, after checking all of its entries."""

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping

import keras
import numpy as np

from keras_t2t.configs import check_value, is_count
from keras_t2t.errors import CheckpointError
from keras_t2t.layers import ClassToken, EncoderBlock, FastDense, FastLayerNorm, PositionEmbedding, TokensToToken
from keras_t2t.layers.position_embedding import resize_positions
from keras_t2t.models import parts
from keras_t2t.models.graph import layers_of
from keras_t2t.models.parts import config_of, head_of
from keras_t2t.models.pyramid import backbone_layers
from keras_t2t.weights.architecture import explain_mismatches
from keras_t2t.weights.matching import match
from keras_t2t.weights.names import POSITIONS
from keras_t2t.weights.reading import Checkpoint, read_checkpoint


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """A report of what `load_checkpoint` did. `str(report)` is a one-line summary.

    Attributes:
        source: Path of the file, or `"a mapping"`.
        entry: Entry of the training state that was used, such as `"state_dict_ema"`, or `None` if the weights were at the top
            level.
        prefixes: Prefixes that were stripped from the names, such as `"module."`.
        layout: Naming scheme of the weights: `"authors"`, `"openmmlab"`, `"keras"` or `"keras_model"`.
        loaded: Number of weights that were loaded.
        resized: Names of the entries that were resized. Only the position table can be resized.
        skipped: Names of the entries that were not loaded. These are the entries of the head if the model has no head or
            `skip_head` is set, and the duplicates of all weights that OpenMMLab's moving average adds.
    """

    source: str
    entry: str | None
    prefixes: tuple[str, ...]
    layout: str
    loaded: int
    resized: tuple[str, ...]
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.loaded} weights from {self.source}"
        text += f", entry {self.entry}" if self.entry else ""
        text += f", prefix {' '.join(self.prefixes)}" if self.prefixes else ""
        text += f", layout {self.layout}"
        text += f"; resized {', '.join(self.resized)}" if self.resized else ""
        return text + (f"; skipped {', '.join(self.skipped)}" if self.skipped else "")


def load_checkpoint(
    model: keras.Model,
    source: str | os.PathLike | Mapping[str, np.ndarray],
    *,
    skip_head: bool = False,
    position_grid: tuple[int, int] | None = None,
) -> LoadReport:
    """Loads a checkpoint into a model.

    All entries are checked before any weight changes. If the model has only a backbone, the entries of the head are skipped. If
    the position table is for a different grid, it is resized to the model's grid, as the reference implementation does for
    fine-tuning at a different image size.

    Reading a file does not require PyTorch and does not execute any code in the file.

    Args:
        model: A T2T-ViT or plain ViT built by this package, or a model that contains one as a layer.
        source: Path of a file saved by `torch.save` or of a `.safetensors`, `.npz`, `.weights.h5`, `.h5` or `.keras` file,
            or a mapping of names to arrays. The names can follow the layout of the authors (which timm and DeiT share for the
            plain ViT), of OpenMMLab or of Keras, and can have the prefixes `module.` and `backbone.`. The dtype can be any real
            numeric dtype. The weights can also be inside a training state, in the first of the entries `state_dict_ema`,
            `state_dict`, `model` and `net` that contains arrays.
        skip_head: Whether to load only the backbone. This is needed if the checkpoint has different classes, or if the model
            has a head of another kind, such as that of a segmenter.
        position_grid: `(rows, columns)` of the position table in the checkpoint. With `None`, it is the grid stored in a file
            with a whole Keras model, or else the only grid that fits the length of the table: either the grid of the model or a
            square one, as in the published files. If both fit, it is the grid of the model for other files saved by Keras.

    Returns:
        A report of what was loaded.

    Raises:
        CheckpointError: If the file is damaged or in an unknown format; if entries are missing, unexpected or of the wrong
            shape; or if the grid of the position table is unknown. The message lists all mismatches. A `CheckpointError` is
            a `ValueError`.
        ValueError: If the model was not built by this package, or if `position_grid` is invalid.
        OSError: If the file cannot be opened.
    """
    valid = position_grid is None or (np.shape(position_grid) == (2,) and all(map(is_count, position_grid)))
    check_value(valid, "position_grid", "(rows, columns), two positive integers", position_grid)
    config_of(model)  # raises unless built by keras_t2t
    return assign(model, read_checkpoint(source), skip_head, position_grid)


def assign(
    model: keras.Model, checkpoint: Checkpoint, skip_head: bool = False, position_grid: tuple[int, int] | None = None
) -> LoadReport:
    """Loads a checkpoint that has been read; see `load_checkpoint`."""
    config, head, layers = config_of(model), head_of(model), _layers_by_part(model)
    positions, channels = layers[parts.POSITION_EMBEDDING], layers[parts.TOKENS_TO_TOKEN].channels
    if head is not None:
        layers[parts.HEAD] = head  # regardless of its name
    classes = None if head is None or skip_head else head.units
    try:
        _check_settings(checkpoint, config)
        fit = _matched(checkpoint, config, positions.grid_size, channels, classes, position_grid or checkpoint.position_grid)
        if head is None and fit.skipped and not skip_head:
            _check_that_there_is_no_head(model)
        weights = _weights_of_rows(fit.rows, layers)
    except CheckpointError as error:
        raise CheckpointError(
            f"The checkpoint does not fit the model {model.name!r}. No weights were loaded from {checkpoint.source}. {error}"
        ) from None
    arrays, resized = checkpoint.arrays, []
    if fit.position_grid != positions.grid_size:
        row = next(row for row in fit.rows if row.target == POSITIONS)
        table = arrays[row.source].reshape(arrays[row.source].shape[-2:]).astype("float32")
        table = keras.ops.convert_to_numpy(resize_positions(table, fit.position_grid, positions.grid_size))
        arrays, resized = {**arrays, row.source: table.reshape(row.shape)}, [row.source]
    for row in fit.rows:
        weights[row.target].assign(row.convert(arrays[row.source]))
    _reset_lora(weights)
    return LoadReport(
        source=checkpoint.source,
        entry=checkpoint.entry,
        prefixes=checkpoint.prefixes,
        layout=fit.layout,
        loaded=len(fit.rows),
        resized=tuple(resized),
        skipped=(*checkpoint.skipped, *fit.skipped),
    )


def _check_settings(checkpoint, config):
    """Checks the settings that do not change the shapes of the weights."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))  # tuples become lists, as in a file
    for name, value in checkpoint.settings.items():
        if values[name] != value:
            raise CheckpointError(f"It was saved from a model with {name}={value}; this model has {name}={values[name]}")


def _matched(checkpoint, config, *arguments):
    try:
        return match(checkpoint.arrays, config, *arguments)
    except CheckpointError as error:
        raise CheckpointError(explain_mismatches(checkpoint.arrays, config, error)) from None


def _check_that_there_is_no_head(model):
    backbone = backbone_layers(model)
    other = next((layer for layer in layers_of(model) if layer.weights and layer not in backbone), None)
    if other is not None:
        raise CheckpointError(
            f"It has a head, but it is unknown whether {other.name!r} is the head of the model. Pass skip_head=True to load "
            "only the backbone"
        )


def _weights_of_rows(rows, layers):
    """Returns the weights by their targets, after checking that they exist and have the expected shapes."""
    weights = _weights_by_path({name: layers[name] for name in {row.target.split("/")[0] for row in rows}})
    wrong = [row.target for row in rows if row.target not in weights or weights[row.target].shape != row.weight_shape]
    if wrong:
        raise CheckpointError(
            f"The model has no weights of the same shape for {', '.join(wrong)}. For another head, pass skip_head=True"
        )
    return weights


def _layers_by_part(model):
    """Returns the layers of the backbone by the names that the constructors give them, whatever their own names are."""
    parts_of_kinds = {
        TokensToToken: [parts.TOKENS_TO_TOKEN],
        ClassToken: [parts.CLASS_TOKEN],
        PositionEmbedding: [parts.POSITION_EMBEDDING],
        EncoderBlock: map(parts.block_name, itertools.count()),
        FastDense: map(parts.transition_name, itertools.count()),
        FastLayerNorm: [parts.NORM],
    }
    layers = backbone_layers(model)
    last = max(index for index, layer in enumerate(layers) if isinstance(layer, EncoderBlock))
    found = [layer for index, layer in enumerate(layers) if index > last or not isinstance(layer, FastLayerNorm)]
    result: dict[str, keras.Layer] = {}
    for kind, names in parts_of_kinds.items():
        result |= zip(names, (layer for layer in found if isinstance(layer, kind)), strict=False)
    return result


def _weights_by_path(layers):
    """Returns the weights by layer name and path within the layer, without the scopes in which the model was built."""
    return {name + weight.path.removeprefix(layer.path): weight for name, layer in layers.items() for weight in layer.weights}


def _reset_lora(weights):
    """Resets LoRA so that it does not change the loaded kernels, as Keras does when it loads a layer."""
    for path, weight in weights.items():
        if path.endswith("/lora_kernel_b"):
            weight.assign(keras.ops.zeros(weight.shape, weight.dtype))
