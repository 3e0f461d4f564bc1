"""Model constructors with the interface of `keras.applications`. They build a model and load its weights."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import keras

from keras_t2t.assets import class_names
from keras_t2t.configs import T2TConfig, is_count, token_grid
from keras_t2t.layers import FeatureMap
from keras_t2t.models import classify, encode, normalize, parts
from keras_t2t.preprocessing import Preprocessing
from keras_t2t.registry import pretrained_weights_of
from keras_t2t.variants import VARIANTS, Variant, find_variant
from keras_t2t.weights.initial import InitialWeights

POOLINGS = (None, "avg", "max", "token")


def T2TViT(
    config: T2TConfig | str,
    include_top: bool = True,
    include_preprocessing: bool = True,
    weights: str | os.PathLike | None = None,
    input_tensor: Any = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: Any = "softmax",
    name: str = "t2t_vit",
    *,
    preprocessing: Preprocessing | None = None,
    dtype: Any = None,
) -> keras.Model:
    config = config if isinstance(config, T2TConfig) else find_variant(config).config
    initial = InitialWeights(config, weights)
    pretrained = initial.pretrained
    classes = (pretrained.classes if pretrained else 1000) if classes is None else classes
    _check_arguments(include_top, weights, pretrained, pooling, classes, classifier_activation)
    preprocessing = preprocessing or initial.preprocessing
    images = _image_input(config, include_top, initial, input_tensor, input_shape)
    size = images.shape[1:3]
    if None not in size:
        preprocessing = dataclasses.replace(preprocessing, image_size=tuple(size))
    x = normalize(images, preprocessing, include_preprocessing, dtype)
    class_token_only = include_top or pooling == "token"
    x, grid = encode(x, config, position_grid=initial.position_grid(size), class_token_only=class_token_only, dtype=dtype)
    if include_top or pooling == "token":
        x = keras.layers.Flatten("channels_last", name=parts.TOKEN_POOL, dtype=dtype)(x)
    else:
        x = _pool(FeatureMap(name=parts.FEATURE_MAP, dtype=dtype)(x, grid), pooling, dtype)
    if include_top:
        labels = class_names(pretrained.dataset) if pretrained else None
        x = classify(x, classes, classifier_activation, labels, dtype)
    inputs = [images] if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    model = keras.Model(inputs[0] if len(inputs) == 1 else inputs, x, name=name)
    initial.load(model)
    return model


_ARGUMENTS = """
    Glossary of shapes:
        B: batch; H, W, C: height, width and channels of the images; h, w: height and width of the token grid (H / 16 and W / 16
        in the published variants); D: width of the backbone.

    Args:
        {config}include_top: Whether to include the classifier. Without it the model returns features.
        include_preprocessing: Whether the model normalizes its images itself. If so, it takes images with values in [0, 255],
            integers or floating point. Otherwise pass images normalized by `keras_t2t.normalize_images`.
        weights: `None` for random initialization; the name of pretrained weights ({published}); or the path of a file that
            `keras_t2t.load_checkpoint` can read. Weights that do not ship with the package are downloaded once and kept in the
            Keras cache.
        input_tensor: Optional Keras tensor `(B, H, W, C)` to use as the image input.
        input_shape: `(H, W, C)`. H and W may differ. The default is the shape for the pretrained `weights`, or else
            {default_shape}. Without the classifier, the default is `(None, None, 3)`. If H or W is `None`, which is only
            possible without the classifier, the model takes images of any size and resizes its position embedding at run time.
        pooling: What the model returns without the classifier: `None` for the tokens as a feature map `(B, h, w, D)`; `"avg"`
            or `"max"` for the mean or maximum over that map, `(B, D)`; or `"token"` for the class token, `(B, D)`.
        classes: Number of classes. Defaults to the number of classes of the pretrained `weights`, or else to 1000.
        classifier_activation: Activation of the classifier, or `None` to return logits. The scores have the shape
            `(B, classes)` and are at least float32.
        name: Name of the model.
        {rates}preprocessing: A `keras_t2t.Preprocessing` that describes how images are prepared. It determines the
            normalization and is stored in the model. Defaults to the preprocessing of `weights`, or else to that of the variant
            with ImageNet's mean and std. If the images have a different number of channels than the preprocessing, they are
            scaled to [-1, 1] instead.
        dtype: Dtype or dtype policy of every layer, or `None` for the global Keras policy.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: If arguments are invalid or contradict each other.
        CheckpointError: If the file given as `weights` cannot be read or does not fit the model. This is a `ValueError`.
        DownloadError: If the pretrained weights cannot be downloaded or cached, or if the download is not the published file.
            This is an `OSError`.

    Example:

    >>> model = {example}
    >>> model.output_shape
    (None, {classes})
"""
_RATES = """drop_rate: Dropout rate after the position embedding, the attention projections and each layer of the MLPs. Used in
            training only.
        attention_drop_rate: Dropout rate of the attention weights. Used in training only.
        drop_path_rate: Drop path rate of the last block. The rate increases linearly from 0 in the first block. Used in
            training only.
        """
_CONFIG = """config: A `keras_t2t.T2TConfig`, or the name of a variant such as `"t2t_vit_14"`.
        """

T2TViT.__doc__ = "Instantiates a T2T-ViT with any configuration.\n" + _ARGUMENTS.format(
    config=_CONFIG,
    rates="",
    published="if `config` is that of a variant, the names of its weights",
    default_shape="`(224, 224, 3)`; for the configuration of a variant, it is the shape for that variant",
    example="keras_t2t.T2TViT(keras_t2t.T2TConfig(depth=2), input_shape=(96, 64, 3), classes=5)",
    classes=5,
)


def _constructor(variant: str) -> Callable[..., keras.Model]:
    """Returns the constructor of a variant. By default, it loads the published ImageNet weights, if there are any."""
    known: Variant = VARIANTS[variant]
    pretrained = pretrained_weights_of(variant)
    default_weights = "imagenet" if "imagenet" in pretrained else None

    def constructor(
        include_top: bool = True,
        include_preprocessing: bool = True,
        weights: str | os.PathLike | None = default_weights,
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: Any = "softmax",
        name: str = variant,
        *,
        drop_rate: float = 0.0,
        attention_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        preprocessing: Preprocessing | None = None,
        dtype: Any = None,
    ) -> keras.Model:
        config = dataclasses.replace(
            known.config, drop_rate=drop_rate, attention_drop_rate=attention_drop_rate, drop_path_rate=drop_path_rate
        )
        return T2TViT(
            config,
            include_top=include_top,
            include_preprocessing=include_preprocessing,
            weights=weights,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name,
            preprocessing=preprocessing,
            dtype=dtype,
        )

    constructor.__name__ = constructor.__qualname__ = known.constructor
    constructor.__doc__ = f"Instantiates {variant}.\n" + _ARGUMENTS.format(
        config="",
        rates=_RATES,
        published=", ".join(f'`"{name}"`' for name in pretrained) or "there are none for this variant",
        default_shape=f"`{(known.image_size, known.image_size, 3)}`",
        example=f"keras_t2t.{known.constructor}(weights=None)",
        classes=1000,
    )
    return constructor


T2TViT7 = _constructor("t2t_vit_7")
T2TViT10 = _constructor("t2t_vit_10")
T2TViT12 = _constructor("t2t_vit_12")
T2TViT14 = _constructor("t2t_vit_14")
T2TViT19 = _constructor("t2t_vit_19")
T2TViT24 = _constructor("t2t_vit_24")
T2TViTt14 = _constructor("t2t_vit_t_14")
T2TViTt19 = _constructor("t2t_vit_t_19")
T2TViTt24 = _constructor("t2t_vit_t_24")
T2TViT14ResNeXt = _constructor("t2t_vit_14_resnext")
T2TViT14Wide = _constructor("t2t_vit_14_wide")
T2TViT14SE = _constructor("t2t_vit_14_se")
T2TViT16Ghost = _constructor("t2t_vit_16_ghost")
T2TViTDense = _constructor("t2t_vit_dense")
ViTSmall16 = _constructor("vit_small_16")
T2TViTTiny32 = _constructor("t2t_vit_tiny_32")


def _pool(features, pooling, dtype):
    """Pools a feature map `(B, h, w, D)`, or returns it unchanged if `pooling` is `None`."""
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D("channels_last", name=parts.AVG_POOL, dtype=dtype)(features)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D("channels_last", name=parts.MAX_POOL, dtype=dtype)(features)
    return features


def _check_arguments(include_top, weights, pretrained, pooling, classes, classifier_activation):
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "T2T-ViT needs images with the channels last; received: image_data_format='channels_first'. "
            "Call keras.config.set_image_data_format('channels_last')"
        )
    if pretrained and include_top and classes != pretrained.classes:
        raise ValueError(
            f"With `weights={weights!r}` and `include_top=True`, `classes` should be {pretrained.classes}. Received: "
            f"classes={classes}. For other classes, use `keras_t2t.replace_head(model, classes)`, or put your own head on "
            "`include_top=False, pooling='token'`"
        )
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` should be one of {POOLINGS}. Received: pooling={pooling!r}")
    if include_top and not is_count(classes):
        raise ValueError(f"`classes` should be a positive integer. Received: classes={classes!r}")
    allowed = [keras.activations.get(activation) for activation in (None, "softmax")]
    if include_top and weights is not None and keras.activations.get(classifier_activation) not in allowed:
        raise ValueError(
            "With pretrained weights, `classifier_activation` should be `None` or 'softmax'. "
            f"Received: classifier_activation={classifier_activation}"
        )


def _image_input(config, include_top, initial, input_tensor, input_shape):
    """Returns the symbolic image input, after checking its shape against the other arguments."""
    pretrained = initial.pretrained
    if input_tensor is not None:
        if not keras.backend.is_keras_tensor(input_tensor):
            raise ValueError(f"`input_tensor` should be a Keras tensor. Received: {input_tensor!r}")
        if input_shape is not None and tuple(input_shape) != tuple(input_tensor.shape[1:]):
            raise ValueError(
                "`input_shape` should be the shape of `input_tensor` without the batch, or None. "
                f"Received: input_shape={input_shape}, input_tensor.shape={input_tensor.shape}"
            )
        input_shape = tuple(input_tensor.shape[1:])
    default = (initial.image_size, initial.image_size, 3)
    if input_shape is None:
        input_shape = default if include_top else (None, None, 3)
    is_shape = isinstance(input_shape, (tuple, list)) and all(size is None or is_count(size) for size in input_shape)
    if not is_shape or len(input_shape) != 3:
        raise ValueError(f"`input_shape` should be a tuple (height, width, channels). Received: input_shape={input_shape}")
    height, width, channels = input_shape
    if pretrained and channels != 3:
        raise ValueError(
            f"With `weights={pretrained.name!r}` the images should have 3 channels. Received: input_shape={input_shape}"
        )
    if pretrained and include_top and tuple(input_shape) != default:
        raise ValueError(
            f"With `weights={pretrained.name!r}` and `include_top=True`, `input_shape` should be {default}. "
            f"Received: input_shape={input_shape}. For another size, build the model with `weights=None` and call "
            "`keras_t2t.load_checkpoint`"
        )
    if channels is None:
        raise ValueError(f"The number of channels should be known. Received: input_shape={input_shape}")
    if include_top and None in input_shape:
        raise ValueError(
            "With `include_top=True`, `input_shape` should be static. Without the classifier the model takes any size. "
            f"Received: input_shape={input_shape}"
        )
    token_grid(config.soft_splits, height, width)
    return keras.Input(input_shape, name=parts.IMAGES) if input_tensor is None else input_tensor
