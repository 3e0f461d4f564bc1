"""The mapping from the entries of a checkpoint to the weights of a model, computed from the model's configuration.

A checkpoint has one of these layouts. The prefixes that `read_checkpoint` strips are not part of it:

- `"authors"`: Names in the reference implementation (https://github.com/yitu-opensource/T2T-ViT, `models/`). The plain
  ViT comes from timm, so timm and DeiT use the same names for it.
- `"openmmlab"`: Names in MMClassification and MMPretrain (https://github.com/open-mmlab/mmpretrain, `models/backbones/`).
- `"keras"`: Paths in a Keras 3 `.weights.h5` file.
- `"keras_model"`: Paths in an `.h5` file with a whole Keras model. They are the paths of the weights.
"""

import dataclasses
import math
import re

import numpy as np

from keras_t2t.configs import T2TConfig, mlp_width, random_feature_count, squeezed_width
from keras_t2t.keras_internals import h5_group, h5_weight
from keras_t2t.models import parts

KERAS_LAYOUTS = ("keras", "keras_model")
LAYOUTS = ("authors", "openmmlab", *KERAS_LAYOUTS)
POSITIONS = f"{parts.POSITION_EMBEDDING}/table"


@dataclasses.dataclass(frozen=True)
class Row:
    """An entry of a checkpoint and the weight that it maps to.

    Attributes:
        source: Name of the entry.
        shape: Shape of the entry in the checkpoint.
        target: Path of the weight, starting with the layer name.
        axes: Order in which the entry's axes are permuted to get the weight.
        view: Shape to which the entry is reshaped before its axes are permuted, or `None` if it is not reshaped.
    """

    source: str
    shape: tuple[int, ...]
    target: str
    axes: tuple[int, ...]
    view: tuple[int, ...] | None = None

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight. Convolution kernels become matrices, and the parameters of a flattened window become vectors."""
        sizes = [(self.view or self.shape)[axis] for axis in self.axes]
        if self.target.endswith(("/gamma", "/beta", "/scale", "/scale1", "/scale2")):
            return (math.prod(sizes),)
        if self.target.endswith(("/kernel", POSITIONS)):
            return (math.prod(sizes[:-1]), sizes[-1])
        return tuple(sizes)

    def convert(self, array: np.ndarray) -> np.ndarray:
        """Converts the value of the entry to the value of the weight, in float32."""
        array = np.asarray(array).reshape(self.view or self.shape).transpose(self.axes)
        return array.astype("float32").reshape(self.weight_shape)


def name_map(
    config: T2TConfig, positions: int, channels: int = 3, classes: int | None = 1000, layout: str = "authors"
) -> list[Row]:
    """Returns a row for each entry of a checkpoint.

    Args:
        config: Configuration of the model.
        positions: Length of the position table, including the class token's entry.
        channels: Number of channels of the images.
        classes: Number of outputs of the head, or `None` for a model without a head.
        layout: One of `LAYOUTS`.
    """
    rows = [
        Row("cls_token", (1, 1, config.embed_dim), f"{parts.CLASS_TOKEN}/token", (0, 1, 2)),
        Row("pos_embed", (1, positions, config.embed_dim), POSITIONS, (0, 1, 2)),
        *_tokens_to_token(config, channels),
        *_encoder(config),
        *_norm("norm", parts.NORM, config.feature_dim),
    ]
    if classes is not None:
        rows += _dense("head", parts.HEAD, config.feature_dim, classes)
    if layout == "openmmlab":
        return [dataclasses.replace(row, source=_openmmlab_name(row.source)) for row in rows]
    if layout in KERAS_LAYOUTS:
        return [_keras_row(row, _h5_path(config, row) if layout == "keras" else row.target) for row in rows]
    return rows


def _openmmlab_name(name):
    for pattern, replacement in (
        (r"^blocks\.", "encoder."),
        (r"\.norm(\d)\.", r".ln\1."),
        (r"\.mlp\.(fc1|0)\.", ".ffn.layers.0.0."),
        (r"\.mlp\.(fc2|2)\.", ".ffn.layers.1."),
        (r"^head\.", "head.layers.head."),
    ):
        name = re.sub(pattern, replacement, name)
    return name


_H5_CLASSES = {parts.TRANSITION: "fast_dense", parts.HEAD: "fast_dense", parts.NORM: "fast_layer_norm"}
"""Class names, in snake case, of layers whose names differ from their class names."""


def _keras_row(row, source):
    """Returns a row that maps a weight saved by Keras under the name `source`."""
    return Row(source, row.weight_shape, row.target, tuple(range(len(row.weight_shape))))


def _h5_path(config, row):
    """Returns the path of a weight in a `.weights.h5` file, which has layers by class and index, and weights by index."""
    layer, *inner, weight = row.target.split("/")
    name = layer.rstrip("0123456789")
    index = len(config.group_depths) - 1 if layer == parts.HEAD else int(layer.removeprefix(name) or 0)
    block = "encoder_block" if config.block == "standard" else f"{config.block}_block"
    class_name = {**_H5_CLASSES, parts.BLOCK: block}.get(name, name)
    groups = [h5_group(class_name, index)]
    if inner and (attention := re.fullmatch(r"attention(\d)", inner[0])) and layer == parts.TOKENS_TO_TOKEN:
        class_name = "fast_dense" if config.token_attention == "convolution" else f"token_{config.token_attention}"
        groups += ["attentions", h5_group(class_name, int(attention[1]) - 1)]
        inner = inner[1:]
    return "/".join([*groups, *inner, h5_weight(1 if weight in ("bias", "beta", "scale2") else 0)])


def _vector(source, target, size):
    return Row(source, (size,), target, (0,))


def _kernel(source, target, inputs, outputs):
    return Row(f"{source}.weight", (outputs, inputs), f"{target}/kernel", (1, 0))


def _dense(source, target, inputs, outputs, bias=True):
    kernel = _kernel(source, target, inputs, outputs)
    return [kernel, _vector(f"{source}.bias", f"{target}/bias", outputs)] if bias else [kernel]


def _norm(source, target, width):
    return [_vector(f"{source}.weight", f"{target}/gamma", width), _vector(f"{source}.bias", f"{target}/beta", width)]


def _tokens_to_token(config, channels):
    *inner, last = config.soft_splits
    rows = []
    for i, (kernel, _, _) in enumerate(inner, 1):
        if config.token_attention == "convolution":
            source = f"tokens_to_token.soft_split{i - 1}"
            rows += _convolution(source, f"{parts.TOKENS_TO_TOKEN}/attention{i}", kernel, channels, config.token_dim)
        else:
            rows += _token_attention(config, i, kernel, channels)
        channels = config.token_dim
    target, kernel = f"{parts.TOKENS_TO_TOKEN}/projection", last[0]
    if config.token_attention != "convolution":
        return rows + _unfolded("tokens_to_token.project", target, kernel, channels, config.embed_dim)
    source = "tokens_to_token.project" if inner else "patch_embed.proj"
    return rows + _convolution(source, target, kernel, channels, config.embed_dim)


def _convolution(source, target, kernel, inputs, outputs):
    shape = (outputs, inputs, kernel, kernel)
    return [
        Row(f"{source}.weight", shape, f"{target}/kernel", (2, 3, 1, 0)),
        _vector(f"{source}.bias", f"{target}/bias", outputs),
    ]


def _unfolded_vector(source, target, kernel, channels):
    return Row(source, (channels * kernel**2,), target, (1, 2, 0), (channels, kernel, kernel))


def _unfolded(source, target, kernel, channels, outputs, bias=True):
    """Returns the rows of a dense layer on a soft split. PyTorch flattens windows in (channel, row, column) order."""
    shape, view = (outputs, channels * kernel**2), (outputs, channels, kernel, kernel)
    rows = [Row(f"{source}.weight", shape, f"{target}/kernel", (2, 3, 1, 0), view)]
    return [*rows, _vector(f"{source}.bias", f"{target}/bias", outputs)] if bias else rows


def _token_attention(config, i, kernel, channels):
    source, target, dim = f"tokens_to_token.attention{i}", f"{parts.TOKENS_TO_TOKEN}/attention{i}", config.token_dim
    rows = [
        _unfolded_vector(f"{source}.norm1.weight", f"{target}/norm1/gamma", kernel, channels),
        _unfolded_vector(f"{source}.norm1.bias", f"{target}/norm1/beta", kernel, channels),
        *_norm(f"{source}.norm2", f"{target}/norm2", dim),
    ]
    if config.token_attention == "performer":
        fused, projection, fc1, fc2 = "kqv", "proj", "mlp.0", "mlp.2"
        features = (random_feature_count(dim), dim)
        rows.append(Row(f"{source}.w", features, f"{target}/random_features", (0, 1)))
    else:
        fused, projection, fc1, fc2 = "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"
    bias = config.token_attention == "performer"
    rows += _unfolded(f"{source}.{fused}", f"{target}/{fused.removeprefix('attn.')}", kernel, channels, 3 * dim, bias)
    rows += _dense(f"{source}.{projection}", f"{target}/projection", dim, dim)
    rows += _dense(f"{source}.{fc1}", f"{target}/mlp/fc1", dim, dim)
    return rows + _dense(f"{source}.{fc2}", f"{target}/mlp/fc2", dim, dim)


def _encoder(config):
    """Returns the rows of the blocks and of the transitions between groups. Checkpoints number both in a single sequence."""
    rows, block, widths = [], 0, iter(config.block_widths)
    for group, depth in enumerate(config.group_depths):
        if group:
            source = f"blocks.{block + group - 1}.linear"
            rows += _dense(source, parts.transition_name(group - 1), *config.transition_widths[group - 1])
        for _ in range(depth):
            rows += _block(config, f"blocks.{block + group}", parts.block_name(block), next(widths))
            block += 1
    return rows


def _block(config, source, target, width):
    hidden = mlp_width(width, config.mlp_ratio)
    attention = {"squeeze_excite": _squeeze_excite_attention, "ghost": _ghost_attention}.get(config.block, _attention)
    mlp = _ghost_mlp if config.block == "ghost" else _mlp
    rows = [
        *_norm(f"{source}.norm1", f"{target}/norm1", width),
        *attention(config, f"{source}.attn", f"{target}/attention", width),
        *_dense(f"{source}.attn.proj", f"{target}/attention/projection", width, width),
        *_norm(f"{source}.norm2", f"{target}/norm2", width),
        *mlp(f"{source}.mlp", f"{target}/mlp", width, hidden),
    ]
    if config.block == "dense":
        rows += _dense(f"{source}.dense_linear", f"{target}/growth_projection", width, config.growth)
    return rows


def _attention(config, source, target, width):
    return _dense(f"{source}.qkv", f"{target}/qkv", width, 3 * width, config.qkv_bias)


def _squeeze_excite_attention(config, source, target, width):
    squeezed = squeezed_width(width)
    return [
        *_attention(config, source, target, width),
        _kernel(f"{source}.se_layer.fc.0", f"{target}/squeeze", width, squeezed),
        _kernel(f"{source}.se_layer.fc.2", f"{target}/excite", squeezed, width),
    ]


def _channel_scale(source, target, width):
    return Row(f"{source}.weight", (width, 1, 1), target, (0, 1, 2))


def _ghost_attention(config, source, target, width):
    rows = []
    for short, name in (("q", "query"), ("k", "key"), ("v", "value")):
        rows += _dense(f"{source}.{short}", f"{target}/{name}/primary", width, width // 2, config.qkv_bias)
        rows.append(_channel_scale(f"{source}.cheap_operation_{short}", f"{target}/{name}/scale", width // 2))
    return rows


def _mlp(source, target, width, hidden):
    return _dense(f"{source}.fc1", f"{target}/fc1", width, hidden) + _dense(f"{source}.fc2", f"{target}/fc2", hidden, width)


def _ghost_mlp(source, target, width, hidden):
    return [
        *_dense(f"{source}.fc1", f"{target}/fc1", width, hidden // 3),
        _channel_scale(f"{source}.cheap_operation2", f"{target}/scale1", hidden // 3),
        _channel_scale(f"{source}.cheap_operation3", f"{target}/scale2", hidden // 3),
        *_dense(f"{source}.fc2", f"{target}/fc2", hidden, width),
    ]
