"""Image classification with KerasHub."""

from typing import Any

import keras
import keras_hub
import numpy as np

from keras_t2t.hub.pyramid_backbone import T2TViTBackbone, backbone
from keras_t2t.layers import ImageNormalization
from keras_t2t.models import normalizes, parts, preprocessing_of
from keras_t2t.models.graph import find_head
from keras_t2t.preprocessing import Preprocessing

KERAS_INTERPOLATIONS = ("bicubic", "bilinear", "lanczos3", "lanczos5", "nearest")
"""What `keras.layers.Resizing` can do in a `tf.data` pipeline and on every backend."""


@keras.saving.register_keras_serializable("keras_t2t")
class T2TViTImageConverter(keras_hub.layers.ImageConverter):
    """Resizes and normalizes images for a `T2TViTBackbone`.

    It is KerasHub's `ImageConverter`, except that it resizes the whole image by default instead of cropping its center.
    """

    backbone_cls = T2TViTBackbone

    def __init__(self, image_size: tuple[int, int] | None = None, crop_to_aspect_ratio: bool = False, **kwargs: Any):
        super().__init__(image_size=image_size, crop_to_aspect_ratio=crop_to_aspect_ratio, **kwargs)


def converter_arguments(preprocessing: Preprocessing, image_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Returns the arguments of an `ImageConverter` that normalizes images as `preprocessing` says."""
    return {
        "image_size": image_size or preprocessing.image_size,
        "scale": list(preprocessing.scale),
        "offset": list(preprocessing.offset),
    }


@keras.saving.register_keras_serializable("keras_t2t")
class T2TViTImageClassifierPreprocessor(keras_hub.models.ImageClassifierPreprocessor):
    """Prepares images for a `T2TViTImageClassifier`."""

    backbone_cls = T2TViTBackbone
    image_converter_cls = T2TViTImageConverter


@keras.saving.register_keras_serializable("keras_t2t")
class T2TViTImageClassifier(keras_hub.models.ImageClassifier):
    """A classifier on the class token of a `T2TViTBackbone`, for KerasHub.

    Args:
        backbone: The backbone.
        num_classes: Number of classes.
        preprocessor: A `T2TViTImageClassifierPreprocessor`, or `None` to take images that are prepared already.
        activation: Activation of the outputs, or `None` to return logits.
        dropout: Dropout rate before the last layer.
        head_dtype: Dtype or dtype policy of the classifier. Defaults to that of the backbone.
        **kwargs: Arguments of `keras_hub.models.Task`.

    Output shape:
        `(B, num_classes)`.
    """

    backbone_cls = T2TViTBackbone
    preprocessor_cls = T2TViTImageClassifierPreprocessor

    def __init__(
        self,
        backbone: T2TViTBackbone,
        num_classes: int,
        preprocessor: Any = None,
        activation: Any = None,
        dropout: float = 0.0,
        head_dtype: Any = None,
        **kwargs: Any,
    ):
        dtype = head_dtype or backbone.dtype_policy
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.output_dropout = keras.layers.Dropout(dropout, dtype=dtype, name="output_dropout")
        self.output_dense = keras.layers.Dense(num_classes, activation=activation, dtype=dtype, name=parts.PREDICTIONS)
        class_token = backbone(backbone.input)[:, 0]
        outputs = self.output_dense(self.output_dropout(class_token))
        self.num_classes = num_classes
        self.pooling = "token"
        self.activation = activation  # the constructor of the base class chooses the loss by it
        self.dropout = dropout
        self.head_dtype = head_dtype and keras.dtype_policies.get(head_dtype).name
        keras_hub.models.Task.__init__(self, inputs=backbone.input, outputs=outputs, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "head_dtype": self.head_dtype}
        del config["pooling"]  # always the class token
        return config


def classifier(model: keras.Model) -> T2TViTImageClassifier:
    """Returns a model as a KerasHub classifier, with a copy of its weights.

    Its preprocessor resizes images and crops their center, without the margin of `Preprocessing.crop_fraction`, and normalizes
    them. It takes images with values in [0, 255] of any size. If Keras does not support the interpolation of the model, it is
    bilinear.

    Args:
        model: A classifier built by this package.

    Raises:
        ValueError: If the model was not built by this package, or if it has no classifier on its class token.

    Example:

    >>> classifier = keras_t2t.hub.classifier(keras_t2t.T2TViTTiny32(weights="cifar10"))
    >>> classifier.predict(np.zeros((2, 40, 50, 3)), verbose=0).shape
    (2, 10)
    """
    head = find_head(model)
    if head is None or len(head.activations) > 1:
        raise ValueError(f"Expected a classifier with at most one activation; received: {model!r}")
    preprocessing = preprocessing_of(model)
    arguments = converter_arguments(preprocessing)
    interpolation = preprocessing.interpolation if preprocessing.interpolation in KERAS_INTERPOLATIONS else "bilinear"
    converter = T2TViTImageConverter(crop_to_aspect_ratio=True, interpolation=interpolation, antialias=True, **arguments)
    result = T2TViTImageClassifier(
        backbone(model),
        num_classes=head.dense.units,
        preprocessor=T2TViTImageClassifierPreprocessor(converter),
        activation=head.activations[0] if head.activations else None,
        name=model.name,
    )
    result.output_dense.kernel.assign(head.dense.kernel)
    if head.dense.use_bias:  # otherwise, it stays zero
        result.output_dense.bias.assign(head.dense.bias)
    _check_outputs(model, result)
    return result


def _check_outputs(model, result):
    """Raises `ValueError` if the outputs differ because `model` pools its tokens or has other layers before its classifier."""
    size = result.preprocessor.image_converter.image_size
    images = np.random.default_rng(0).uniform(0, 255, (1, *size, model.input_shape[-1])).astype("float32")
    normalized = ImageNormalization(preprocessing_of(model))(images)
    expected = model(images if normalizes(model) else normalized, training=False)
    expected, received = (keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in (expected, result(normalized)))
    if not np.allclose(received, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max()):
        raise ValueError(
            f"Expected a classifier on the class token, as built by keras_t2t, without layers in between; received: {model!r}"
        )
