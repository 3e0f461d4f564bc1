"""KerasHub's object detector and its semantic segmentation model on the backbone of a T2T-ViT."""

import math

import keras
import keras_hub

from keras_t2t.configs import check_image_size
from keras_t2t.hub.classification import converter_arguments
from keras_t2t.hub.pyramid_backbone import backbone
from keras_t2t.models import preprocessing_of, pyramid_levels
from keras_t2t.models.pyramid import DETECTOR_LEVEL

BOX_FORMAT = "xyxy"
PRIOR_PROBABILITY = 0.01
DILATION_RATES = (6, 12, 18)


def detector(
    model: keras.Model,
    classes: int,
    *,
    image_size: tuple[int, int],
    min_level: int = 3,
    max_level: int = 7,
    anchor_size: float = 4.0,
    confidence_threshold: float = 0.05,
) -> keras.Model:
    """Returns KerasHub's RetinaNet on the backbone of a model. Only the backbone has trained weights.

    Boxes are (x_min, y_min, x_max, y_max) in pixels. Train it with `keras_t2t.data.detection_batches`. KerasHub 0.32
    initializes the heads of RetinaNet so that they hardly train, so this function initializes them again: the prior of the
    classes is 0.01, as in the paper (Lin et al., ICCV 2017, section 4.1), and the layers before have He's initialization.

    Args:
        model: A model built by this package. Its weights are copied.
        classes: Number of classes.
        image_size: Height and width of the images, multiples of 32. The preprocessor resizes images to this size.
        min_level: First level with anchors. Level n has a stride of 2**n pixels.
        max_level: Last level with anchors.
        anchor_size: Side of the smallest anchors of a level, as a multiple of its stride.
        confidence_threshold: Minimum confidence of the boxes that `predict` returns. The average precision needs a low one.

    Returns:
        A `keras_hub.models.RetinaNetObjectDetector`, compiled with KerasHub's losses. It takes images `(B, H, W, C)` with
        values in [0, 255].

    Raises:
        ValueError: If `image_size` is not divisible by 32, if the model has no feature map of `min_level` (a plain ViT has none
            below P4), or if it was not built by this package.
    """
    _check_sides(image_size, 2**DETECTOR_LEVEL)
    encoder = backbone(model, (*image_size, model.inputs[0].shape[-1]))
    if f"P{min_level}" not in encoder.pyramid_outputs:
        raise ValueError(
            f"{model.name} has no feature map P{min_level}. It has {', '.join(encoder.pyramid_outputs)}; "
            f"received: min_level={min_level}"
        )
    pyramid = keras_hub.models.RetinaNetBackbone(
        encoder, min_level, max_level, use_p5=False, image_shape=encoder.image_shape, dtype=encoder.dtype_policy
    )
    anchors = keras_hub.layers.AnchorGenerator(
        BOX_FORMAT, min_level, max_level, num_scales=3, aspect_ratios=[0.5, 1.0, 2.0], anchor_size=anchor_size
    )
    converter = keras_hub.layers.RetinaNetImageConverter(
        crop_to_aspect_ratio=False,
        bounding_box_format=BOX_FORMAT,
        **converter_arguments(preprocessing_of(model), image_size),
    )
    result = keras_hub.models.RetinaNetObjectDetector(
        backbone=pyramid,
        num_classes=classes,
        bounding_box_format=BOX_FORMAT,
        anchor_generator=anchors,
        preprocessor=keras_hub.models.RetinaNetObjectDetectorPreprocessor(image_converter=converter),
        prediction_decoder=keras_hub.layers.NonMaxSuppression(
            BOX_FORMAT, from_logits=True, confidence_threshold=confidence_threshold
        ),
    )
    initialize_heads(result)
    return result


def initialize_heads(model: keras.Model) -> None:
    """Initializes the heads of KerasHub's RetinaNet, because KerasHub 0.32 gives the prior of the classes to the boxes."""
    prior = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)
    for head, bias in ((model.classification_head, prior), (model.box_head, 0.0)):
        for layer in head.conv_layers:
            layer.kernel.assign(keras.initializers.HeNormal()(layer.kernel.shape))
            layer.bias.assign(keras.ops.zeros(layer.bias.shape))
        last = head.prediction_layer
        last.kernel.assign(keras.initializers.RandomNormal(stddev=0.01)(last.kernel.shape))
        last.bias.assign(keras.ops.full(last.bias.shape, bias))


def _check_sides(image_size, stride):
    check_image_size(image_size)
    if any(side % stride for side in image_size):
        raise ValueError(f"Expected an image_size with sides divisible by {stride}; received: image_size={image_size}")


def deeplab(model: keras.Model, classes: int, *, image_size: tuple[int, int]) -> keras.Model:
    """Returns KerasHub's DeepLabV3+ on the backbone of a model. Only the backbone has trained weights.

    Args:
        model: A model built by this package. Its weights are copied.
        classes: Number of classes.
        image_size: Height and width of the images, multiples of the stride of the model's last feature map. The preprocessor
            resizes images to this size, but it does not resize masks.

    Returns:
        A `keras_hub.models.DeepLabV3ImageSegmenter` that takes images `(B, H, W, C)` with values in [0, 255] and returns logits
        `(B, H, W, classes)`. It is compiled for masks `(B, H, W)` of class indices, unlike KerasHub's default, which expects
        one-hot masks. Compile it again to ignore an index.

    Raises:
        ValueError: If `image_size` is not divisible by the stride, or if the model was not built by this package.
    """
    encoder = backbone(model, (*image_size, model.inputs[0].shape[-1]))
    levels = pyramid_levels(encoder.config["soft_splits"])
    first, last = levels[0], levels[-1]
    _check_sides(image_size, 2 ** int(last[1:]))
    features = keras_hub.models.DeepLabV3Backbone(
        encoder,
        spatial_pyramid_pooling_key=last,
        upsampling_size=2 ** (int(last[1:]) - int(first[1:])),
        dilation_rates=list(DILATION_RATES),
        low_level_feature_key=first if first != last else None,
        image_shape=encoder.image_shape,
    )
    converter = keras_hub.layers.DeepLabV3ImageConverter(
        crop_to_aspect_ratio=False, **converter_arguments(preprocessing_of(model), image_size)
    )
    result = keras_hub.models.DeepLabV3ImageSegmenter(
        backbone=features,
        num_classes=classes,
        preprocessor=keras_hub.models.DeepLabV3ImageSegmenterPreprocessor(image_converter=converter),
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    result.compile(loss=loss, metrics=[keras.metrics.SparseCategoricalAccuracy()])
    return result
