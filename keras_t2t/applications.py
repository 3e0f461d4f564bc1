"""Constructors with the contract of `keras.applications`: the one place where models meet weights."""

import dataclasses
import os

import keras

from keras_t2t.configs import VARIANTS, T2TConfig, image_size_of, is_count, token_grid, variant_config, variant_of
from keras_t2t.imagenet import MEAN, STD
from keras_t2t.labels import dataset_labels
from keras_t2t.layers import FeatureMap
from keras_t2t.models import classify, encode
from keras_t2t.weights import CheckpointError, load_checkpoint
from keras_t2t.weights.infer import infer_architecture
from keras_t2t.weights.pretrained import load_pretrained
from keras_t2t.weights.read import read_checkpoint
from keras_t2t.weights.registry import Source, sources_of

POOLINGS = (None, "avg", "max", "token")


def T2TViT(
    config,
    include_top=True,
    include_preprocessing=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=None,
    classifier_activation="softmax",
    name="t2t_vit",
    *,
    dtype=None,
):
    config = config if isinstance(config, T2TConfig) else variant_config(config)
    source = _find_source(weights, variant_of(config))
    default_classes = source.classes if source else 1000
    classes = default_classes if classes is None else classes
    _check_arguments(include_top, weights, source, pooling, classes, classifier_activation)
    images = _image_input(config, include_top, source, input_tensor, input_shape)
    x = _normalise(images, dtype) if include_preprocessing else images
    table_size = _table_size(weights, source, config) if None in images.shape[1:3] else image_size_of(None)
    x, grid = encode(x, config, table_size=table_size, class_token_only=include_top or pooling == "token", dtype=dtype)
    if include_top:
        x = classify(x[:, 0], classes, classifier_activation, dataset_labels(source.dataset) if source else None, dtype)
    elif pooling == "token":
        x = x[:, 0]
    else:
        x = FeatureMap(name="feature_map", dtype=dtype)(x, grid)
        if pooling == "avg":
            x = keras.layers.GlobalAveragePooling2D("channels_last", name="avg_pool", dtype=dtype)(x)
        elif pooling == "max":
            x = keras.layers.GlobalMaxPooling2D("channels_last", name="max_pool", dtype=dtype)(x)
    inputs = images if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    model = keras.Model(inputs, x, name=name)
    if source:
        load_pretrained(model, source, lambda: _published_model(source))
    elif weights is not None:
        load_checkpoint(model, weights)
    return model


def _published_model(source: Source):
    """The model that weights were published for."""
    shape = (source.image_size, source.image_size, 3)
    return T2TViT(VARIANTS[source.variant], input_shape=shape, classes=source.classes, name=source.variant, dtype="float32")


_ARGUMENTS = """
    Glossary of shapes:
        B: batch; H, W, C: height, width and channels of the images; h, w: the grid of tokens (H / 16, W / 16 for the published
        variants); D: width of the backbone.

    Args:
        {config}include_top: whether to have the classifier; otherwise the model returns features.
        include_preprocessing: whether the model normalises its images itself: they are then in [0, 255], integers or floating
            point; RGB is normalised by the mean and deviation of ImageNet, images of other than 3 channels to [-1, 1].
            Otherwise pass images normalised by `keras_t2t.preprocess_input`.
        weights: None for random ones; the name of published ones, which are downloaded once and kept in the cache of Keras:
            {published}; or the path of any file that `keras_t2t.load_checkpoint` reads.
        input_tensor: optional Keras tensor (B, H, W, C) to use as the images.
        input_shape: (H, W, C); by default that of published `weights`, or (224, 224, 3), for t2t_vit_tiny_32
            (32, 32, 3), and (None, None, 3) without top. H and W may differ. Without top they may be None: the model then takes
            any size and resizes its positions at run time.
        pooling: what the model returns without top: None, the tokens as a map (B, h, w, D); `"avg"` or `"max"` of that map,
            (B, D); `"token"`, the class token that the classifier sees, (B, D).
        classes: number of classes of the classifier; by default that of published `weights`, or 1000.
        classifier_activation: activation of the classifier; None for logits. The result is (B, classes) in at least float32.
        name: name of the model.
        {rates}dtype: dtype or policy of every layer; None for the global policy of Keras.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: for arguments that contradict each other or that no model can be built from.
        CheckpointError: a `ValueError`, if the file that `weights` names cannot be read or does not fit.
        DownloadError: an `OSError`, if published weights cannot be fetched, or are not what was published.
"""
_RATES = """drop_rate, attention_drop_rate, drop_path_rate: regularisation in training; see `keras_t2t.T2TConfig`.
        """

_CONFIG = """config: a `keras_t2t.T2TConfig`, or the name of a variant such as `"t2t_vit_14"`.
        """

T2TViT.__doc__ = "Instantiates a T2T-ViT of any configuration.\n" + _ARGUMENTS.format(
    config=_CONFIG, rates="", published="those of the variant, if the configuration is that of one"
)


def _variant(function_name, variant):
    """Returns the constructor of one of `VARIANTS`; by default with the weights published for ImageNet, if there are any."""
    default_weights = "imagenet" if "imagenet" in sources_of(variant) else None

    def constructor(
        include_top=True,
        include_preprocessing=True,
        weights=default_weights,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=None,
        classifier_activation="softmax",
        name=variant,
        *,
        drop_rate=0.0,
        attention_drop_rate=0.0,
        drop_path_rate=0.0,
        dtype=None,
    ):
        rates = {"drop_rate": drop_rate, "attention_drop_rate": attention_drop_rate, "drop_path_rate": drop_path_rate}
        return T2TViT(
            dataclasses.replace(variant_config(variant), **rates),
            include_top=include_top,
            include_preprocessing=include_preprocessing,
            weights=weights,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            name=name,
            dtype=dtype,
        )

    constructor.__name__ = constructor.__qualname__ = function_name
    published = ", ".join(f'`"{name}"`' for name in sources_of(variant)) or "there are none for this variant"
    constructor.__doc__ = f"Instantiates {variant}.\n" + _ARGUMENTS.format(config="", rates=_RATES, published=published)
    return constructor


T2TViT7 = _variant("T2TViT7", "t2t_vit_7")
T2TViT10 = _variant("T2TViT10", "t2t_vit_10")
T2TViT12 = _variant("T2TViT12", "t2t_vit_12")
T2TViT14 = _variant("T2TViT14", "t2t_vit_14")
T2TViT19 = _variant("T2TViT19", "t2t_vit_19")
T2TViT24 = _variant("T2TViT24", "t2t_vit_24")
T2TViTt14 = _variant("T2TViTt14", "t2t_vit_t_14")
T2TViTt19 = _variant("T2TViTt19", "t2t_vit_t_19")
T2TViTt24 = _variant("T2TViTt24", "t2t_vit_t_24")
T2TViT14ResNeXt = _variant("T2TViT14ResNeXt", "t2t_vit_14_resnext")
T2TViT14Wide = _variant("T2TViT14Wide", "t2t_vit_14_wide")
T2TViT14SE = _variant("T2TViT14SE", "t2t_vit_14_se")
T2TViT16Ghost = _variant("T2TViT16Ghost", "t2t_vit_16_ghost")
T2TViTDense = _variant("T2TViTDense", "t2t_vit_dense")
ViTSmall16 = _variant("ViTSmall16", "vit_small_16")
T2TViTTiny32 = _variant("T2TViTTiny32", "t2t_vit_tiny_32")


def _find_source(weights, variant) -> Source | None:
    """Returns the published weights that `weights` names, or None if it is None or a file."""
    sources = sources_of(variant)
    if weights is None or (isinstance(weights, (str, os.PathLike)) and weights not in sources and os.path.isfile(weights)):
        return None
    if not isinstance(weights, str) or weights not in sources:
        names = "".join(f"{name!r} ({'shipped' if source.path else 'published'}), " for name, source in sources.items())
        raise ValueError(
            f"The `weights` argument should be either `None` (random initialization), {names}or the path to the weights file "
            f"to be loaded. Received: weights={weights}"
        )
    return sources[weights]


def _check_arguments(include_top, weights, source, pooling, classes, classifier_activation):
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "T2T-ViT works on images with the channels last; received: image_data_format='channels_first'. "
            "Call keras.config.set_image_data_format('channels_last')"
        )
    if source and include_top and classes != source.classes:
        raise ValueError(
            f"With `weights={weights!r}` and `include_top=True`, `classes` should be {source.classes}. Received: "
            f"classes={classes}. For other classes take `keras_t2t.replace_head(model, classes)` of this model, or put a head "
            "of your own on `include_top=False, pooling='token'`"
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


def _table_size(weights, source, config) -> int:
    """Height and width of the images that the position table of weights is for."""
    if weights is None or source:
        return source.image_size if source else image_size_of(variant_of(config))
    try:
        return infer_architecture(read_checkpoint(weights).arrays, config).image_size[0]
    except CheckpointError:
        return image_size_of(variant_of(config))  # loading will say what is wrong


def _image_input(config, include_top, source, input_tensor, input_shape):
    """Returns the symbolic images, their shape checked against the rest of the arguments."""
    if input_tensor is not None:
        if not keras.backend.is_keras_tensor(input_tensor):
            raise ValueError(f"`input_tensor` should be a Keras tensor. Received: {input_tensor!r}")
        if input_shape is not None and tuple(input_shape) != tuple(input_tensor.shape[1:]):
            raise ValueError(
                "`input_shape` should be the shape of `input_tensor` without the batch, or None. "
                f"Received: input_shape={input_shape}, input_tensor.shape={input_tensor.shape}"
            )
        input_shape = tuple(input_tensor.shape[1:])
    size = source.image_size if source else image_size_of(variant_of(config))
    default = (size, size, 3)
    if input_shape is None:
        input_shape = default if include_top else (None, None, 3)
    is_shape = isinstance(input_shape, (tuple, list)) and all(size is None or is_count(size) for size in input_shape)
    if not is_shape or len(input_shape) != 3:
        raise ValueError(f"`input_shape` should be a tuple (height, width, channels). Received: input_shape={input_shape}")
    height, width, channels = input_shape
    if source and channels != 3:
        raise ValueError(
            f"With `weights={source.name!r}` the images should have 3 channels. Received: input_shape={input_shape}"
        )
    if source and include_top and tuple(input_shape) != default:
        raise ValueError(
            f"With `weights={source.name!r}` and `include_top=True`, `input_shape` should be {default}. "
            f"Received: input_shape={input_shape}. For another size build the model with `weights=None` and call "
            "`keras_t2t.load_checkpoint`"
        )
    if channels is None:
        raise ValueError(f"The number of channels should be known. Received: input_shape={input_shape}")
    if include_top and None in input_shape:
        raise ValueError(
            "With `include_top=True`, `input_shape` should be static; without, the model takes any size. "
            f"Received: input_shape={input_shape}"
        )
    token_grid(config.soft_splits, height, width)
    return keras.Input(input_shape, name="images") if input_tensor is None else input_tensor


def _normalise(images, dtype):
    if images.shape[-1] == 3:
        scale, offset = [1 / (255 * s) for s in STD], [-m / s for m, s in zip(MEAN, STD, strict=True)]
    else:
        scale, offset = 1 / 127.5, -1.0
    return keras.layers.Rescaling(scale, offset, name="normalisation", dtype=dtype)(images)
