"""Three steps of training with every dense model, and one step on other backends, where compilation takes most of the time."""

import keras
import keras_cv
import numpy as np
import pytest

import keras_t2t
from keras_t2t import cv, hub
from tests.conftest import slow_on_tensorflow

SIZE = (64, 96)
CONFIG = keras_t2t.T2TConfig(soft_splits=((7, 4, 2), (3, 2, 1), (3, 2, 1)), token_dim=8, embed_dim=24, depth=1, num_heads=2)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype("uint8")
MASKS = (IMAGES.mean(-1) > 128).astype("int32")
BOXES = np.array([[[10, 10, 42, 40], [-1] * 4], [[50, 20, 90, 60], [5, 5, 30, 30]]], "float32")
LABELS = np.array([[1, -1], [0, 1]])
STEPS = 3 if keras.backend.backend() == "tensorflow" else 1
KINDS = ["segmenter", "hub.classifier", "hub.detector", "hub.deeplab", "cv.retinanet", "cv.yolo", "cv.deeplab"]


def build(kind):
    """Returns a model that is ready for `fit`, and its targets."""
    keras.utils.set_random_seed(0)
    model = keras_t2t.T2TViT(CONFIG, input_shape=(*SIZE, 3), classes=2)
    optimizer = keras.optimizers.SGD(1e-3, global_clipnorm=1.0)
    if kind == "hub.classifier":
        result = hub.classifier(model)
        result.compile(optimizer, keras.losses.SparseCategoricalCrossentropy())
        return result, np.array([0, 1])
    if kind == "hub.detector":
        result = hub.detector(model, 2, image_size=SIZE, max_level=5)
        result.compile(optimizer)
        return result, {"boxes": BOXES, "labels": LABELS}
    if kind == "hub.deeplab":
        result = hub.deeplab(model, 2, image_size=SIZE)
        result.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[])
        return result, MASKS[..., None]
    if kind == "cv.retinanet":
        result = keras_cv.models.RetinaNet(num_classes=2, bounding_box_format="xyxy", backbone=cv.backbone(model))
        result.compile(optimizer=optimizer, box_loss="smoothl1", classification_loss="focal")
        return result, {"boxes": BOXES, "classes": LABELS.astype("float32")}
    if kind == "cv.yolo":
        result = keras_cv.models.YOLOV8Detector(cv.backbone(model), 2, "xyxy", fpn_depth=1)
        result.compile(optimizer=optimizer, box_loss="ciou", classification_loss="binary_crossentropy")
        return result, {"boxes": BOXES, "classes": LABELS.astype("float32")}
    if kind == "cv.deeplab":
        result = keras_cv.models.DeepLabV3Plus(num_classes=2, backbone=cv.backbone(model))
    else:
        result = keras_t2t.segmenter(model, 2, image_size=SIZE, drop_rate=0.0)
    result.compile(optimizer, "sparse_categorical_crossentropy")
    return result, MASKS


@slow_on_tensorflow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:The structure of")
def test_the_loss_falls(kind):
    model, targets = build(kind)
    images = IMAGES.astype("float32") if kind.startswith("cv") or kind == "segmenter" else IMAGES
    before = model.get_weights()
    losses = model.fit(images, targets, batch_size=2, epochs=STEPS, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and (STEPS == 1 or losses[-1] < losses[0])
    assert any((new != old).any() for new, old in zip(model.get_weights(), before, strict=True))
