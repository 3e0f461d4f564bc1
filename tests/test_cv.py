"""keras-cv's models on our backbone."""

import keras
import keras_cv
import numpy as np
import pytest

import keras_t2t
from keras_t2t import cv
from tests.conftest import PYRAMID_CONFIGS
from tests.data_pipeline.test_pipeline import first

CONFIG = keras_t2t.T2TConfig(**{**PYRAMID_CONFIGS["performer"], "soft_splits": ((5, 4, 2), (3, 2, 1), (3, 2, 1))})
X = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return keras_t2t.T2TViT(CONFIG, input_shape=(48, 48, 3), classes=4, name="small")


def test_levels_are_those_of_the_feature_pyramid(model):
    backbone = cv.backbone(model, (64, 96, 3))
    levels = ["P2", "P3", "P4", "P5"]
    assert list(backbone.pyramid_level_inputs) == levels
    outputs = {level: backbone.get_layer(name).output for level, name in backbone.pyramid_level_inputs.items()}
    received = keras.Model(backbone.inputs, outputs).predict(X, verbose=0)
    for level, values in keras_t2t.feature_pyramid(model, levels=levels).predict(X, verbose=0).items():
        np.testing.assert_allclose(received[level], values, rtol=1e-4, atol=1e-5)
    copy = cv.T2TViTBackbone.from_config(backbone.get_config())
    assert copy.get_config() == backbone.get_config()


@pytest.mark.filterwarnings("ignore:`compile")
@pytest.mark.parametrize("task", ["retinanet", "yolo", "deeplab"])
@pytest.mark.slow
def test_models_keep_every_bit(model, task, tmp_path):
    backbone = cv.backbone(model, (64, 96, 3))
    if task == "retinanet":
        result = keras_cv.models.RetinaNet(num_classes=3, bounding_box_format="xyxy", backbone=backbone)
    elif task == "yolo":
        result = keras_cv.models.YOLOV8Detector(backbone, 3, "xyxy", fpn_depth=1)
    else:
        result = keras_cv.models.DeepLabV3Plus(num_classes=3, backbone=backbone)
    result.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for expected, received in zip(keras.tree.flatten(result(X)), keras.tree.flatten(loaded(X)), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(received), keras.ops.convert_to_numpy(expected))


def test_augmentation_layers_of_keras_cv_change_batches():
    """They draw from a generator of TensorFlow instead of a seed generator of Keras."""
    images, targets = first(None)
    with pytest.warns(UserWarning, match="draws its random numbers one after the other"):
        brighter, same_targets = first(keras_cv.layers.RandomBrightness(0.2, seed=1))
    assert np.abs(brighter - images).max() > 1
    np.testing.assert_array_equal(same_targets, targets)
    with pytest.warns(UserWarning, match="draws its random numbers"):
        first(keras.Sequential([keras_cv.layers.RandomBrightness(0.2, seed=1)]))
    with pytest.warns(UserWarning, match="draws its random numbers"):
        _, mixed = first(keras_cv.layers.CutMix(seed=1))
    assert (mixed != targets).any() and mixed.sum(-1) == pytest.approx(1)


def test_segformer_does_not_fit(model):
    """What the docstring of the module says."""
    with pytest.raises(AttributeError, match="embedding_dims"):
        keras_cv.models.SegFormer(num_classes=3, backbone=cv.backbone(model, (64, 96, 3)))
