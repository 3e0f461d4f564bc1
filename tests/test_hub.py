"""KerasHub's models on our backbone: parity, presets, and guards for the faults of KerasHub that are worked around."""

import keras
import keras_hub
import numpy as np
import pytest

import keras_t2t
from keras_t2t import hub
from keras_t2t.keras_internals import run_graph
from tests.conftest import PYRAMID_CONFIGS, outputs_of

SIZE = (40, 64)
X = np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 3)).astype("float32")
CONFIG = keras_t2t.T2TConfig(**{**PYRAMID_CONFIGS["performer"], "soft_splits": ((5, 4, 2), (3, 2, 1), (3, 2, 1))})


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    model = keras_t2t.T2TViT(CONFIG, input_shape=(*SIZE, 3), classes=4, name="small")
    rng = np.random.default_rng(2)
    model.set_weights([weight + rng.normal(0, 0.05, weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def classifier(model):
    return hub.classifier(model)


@pytest.mark.parametrize("kind", ["performer", "dense", "patches"])
def test_logits_are_those_of_the_model(kind):
    config = keras_t2t.T2TConfig(**PYRAMID_CONFIGS[kind])
    model = keras_t2t.T2TViT(config, input_shape=(*SIZE, 3), classes=4, classifier_activation=None)
    np.testing.assert_allclose(hub.classifier(model).predict(X, verbose=0), outputs_of(model, X), rtol=1e-5, atol=1e-6)


def test_the_backbone_of_a_model_inside_another_one(model):
    nested = keras.Sequential([keras.Input((*SIZE, 3)), model, keras.layers.Dense(2)])
    received = hub.backbone(nested)
    for weight, expected in zip(received.get_weights(), hub.backbone(model).get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.slow
def test_pyramid_outputs_are_those_of_the_feature_pyramid(model):
    backbone = hub.backbone(model, (56, 72, 3))
    images = np.random.default_rng(1).uniform(0, 255, (1, 56, 72, 3)).astype("float32")
    expected = outputs_of(keras_t2t.feature_pyramid(model, levels=["P2", "P3", "P4", "P5"]), images)
    normalized = keras_t2t.normalize_images(images, keras_t2t.preprocessing_of(model))
    received = outputs_of(keras.Model(backbone.input, backbone.pyramid_outputs), normalized)
    assert list(received) == list(expected)
    for level, values in expected.items():
        np.testing.assert_allclose(received[level], values, rtol=1e-4, atol=1e-5)
    extra = keras.Model(backbone.input, backbone.pyramid_outputs["P5"])
    assert extra.count_params() == backbone.count_params()


@pytest.mark.slow
def test_presets_keep_every_bit(classifier, tmp_path):
    classifier.save_to_preset(tmp_path / "preset")
    loaded = keras_hub.models.ImageClassifier.from_preset(str(tmp_path / "preset"))
    assert type(loaded) is hub.T2TViTImageClassifier
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), classifier.predict(X, verbose=0))
    converter = loaded.preprocessor.image_converter
    assert type(converter) is hub.T2TViTImageConverter and converter.image_size == SIZE
    with pytest.warns(UserWarning, match="compile"):
        classifier.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), classifier.predict(X, verbose=0))


def test_presets_take_the_usual_arguments(classifier, tmp_path):
    preset = str(tmp_path / "preset")
    classifier.save_to_preset(preset)
    other = keras_hub.models.ImageClassifier.from_preset(preset, num_classes=3, image_shape=(48, 80, 3))
    assert other.output_shape == (None, 3) and other.input_shape == (None, 48, 80, 3)
    assert other.backbone.get_layer("position_embedding").grid_size == (3, 4)  # the table is that of the weights
    for new, old in zip(other.backbone.get_weights(), classifier.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    half = keras_hub.models.Backbone.from_preset(preset, dtype="bfloat16")
    assert {layer.dtype_policy.name for layer in half.layers if layer.weights} == {"bfloat16"}
    random = keras_hub.models.Backbone.from_preset(preset, load_weights=False)
    assert (random.get_layer("block0").get_weights()[2] != half.get_layer("block0").get_weights()[2]).any()


def test_the_dtype_of_the_head_is_kept(tmp_path):
    backbone = hub.T2TViTBackbone(CONFIG, (*SIZE, 3), dtype="mixed_bfloat16")
    classifier = hub.T2TViTImageClassifier(backbone, 5, head_dtype="float32")
    classifier.save_to_preset(tmp_path / "preset")
    for copy in (
        hub.T2TViTImageClassifier.from_config(classifier.get_config()),
        keras_hub.models.ImageClassifier.from_preset(str(tmp_path / "preset"), dtype="mixed_bfloat16"),
    ):
        assert copy.output_dense.dtype_policy.name == "float32" and copy.output.dtype == "float32"
        assert copy.backbone.get_layer("block1").dtype_policy.name == "mixed_bfloat16"


@pytest.mark.parametrize("interpolation", ["area", "gaussian", "lanczos3", "mitchellcubic"])
def test_the_interpolation_is_one_that_keras_has(interpolation):
    preprocessing = keras_t2t.Preprocessing(image_size=SIZE, interpolation=interpolation)
    model = keras_t2t.T2TViT(CONFIG, input_shape=(*SIZE, 3), classes=4, preprocessing=preprocessing)
    converter = hub.classifier(model).preprocessor.image_converter
    assert converter.interpolation == (interpolation if interpolation == "lanczos3" else "bilinear")
    expected = keras_t2t.normalize_images(np.full((1, 3, 5, 3), 100), preprocessing)[0, 0, 0]
    np.testing.assert_allclose(converter(np.full((1, 50, 90, 3), 100.0))[0, 20, 30], expected, rtol=1e-4)


def test_the_preprocessor_resizes_and_normalizes(classifier, model):
    pixels = np.random.default_rng(3).integers(0, 256, (1, *SIZE, 3)).astype("uint8")
    expected = keras_t2t.normalize_images(pixels, keras_t2t.preprocessing_of(model))
    np.testing.assert_allclose(np.asarray(classifier.preprocessor(pixels)), expected, atol=1e-5)
    wide = np.tile(np.linspace(0, 255, 256, dtype="float32")[:, None], (1, 80, 1, 3))  # dark on the left, bright on the right
    whole = np.asarray(hub.T2TViTImageConverter(SIZE)(wide))[0, 0, :, 0]
    assert whole.min() < 5 and whole.max() > 250
    crop = np.asarray(classifier.preprocessor(wide))[0, 0, :, 0]
    preprocessing = keras_t2t.preprocessing_of(model)
    crop = (crop - preprocessing.offset[0]) / preprocessing.scale[0]
    assert crop.min() == pytest.approx(64, abs=4) and crop.max() == pytest.approx(191, abs=4)  # the half in the middle


def test_lora_finds_the_dense_layers(model):
    backbone = hub.backbone(model)
    backbone.enable_lora(2)
    assert {weight.name for weight in backbone.trainable_weights} == {"lora_kernel_a", "lora_kernel_b", "bias"}
    names = {weight.path.split("/")[-2] for weight in backbone.trainable_weights if weight.name == "lora_kernel_a"}
    assert names == {"qkv", "kqv", "projection", "fc1", "fc2"}


def test_known_fault_of_kerashub_lora_finds_no_layers_by_default(model):
    backbone = hub.backbone(model)
    backbone.enable_lora(2, keras_hub.models.Backbone.default_lora_layer_names(backbone))
    assert not [weight for weight in backbone.weights if "lora" in weight.name]


def test_backbones_from_a_variant_and_of_any_size():
    backbone = hub.T2TViTBackbone("t2t_vit_tiny_32")
    assert backbone.input_shape == (None, None, None, 3)
    assert list(backbone.pyramid_outputs) == ["P1", "P2", "P3", "P4", "P5"]
    copy = hub.T2TViTBackbone.from_config(backbone.get_config())
    assert copy.get_config() == backbone.get_config() and copy.config["embed_dim"] == 128


@pytest.mark.slow
def test_detectors_keep_every_bit(model, tmp_path):
    detector = hub.detector(model, 3, image_size=(64, 96), max_level=5, anchor_size=2.0, confidence_threshold=0.0)
    images = np.random.default_rng(1).uniform(0, 255, (2, 64, 96, 3)).astype("float32")
    detector.save_to_preset(tmp_path / "preset")
    loaded = keras_hub.models.ObjectDetector.from_preset(str(tmp_path / "preset"))
    expected, received = detector.predict(images, verbose=0), loaded.predict(images, verbose=0)
    assert expected["boxes"].shape == (2, 100, 4)
    for name, values in expected.items():
        np.testing.assert_array_equal(received[name], values)
    np.testing.assert_array_equal(
        detector.backbone.image_encoder.get_layer("block0").get_weights()[2], model.get_layer("block0").get_weights()[2]
    )


@pytest.mark.slow
def test_segmenters_keep_every_bit(model, tmp_path):
    deeplab = hub.deeplab(model, 5, image_size=(48, 64))
    images = np.random.default_rng(1).uniform(0, 255, (2, 48, 64, 3)).astype("float32")
    deeplab.save_to_preset(tmp_path / "preset")
    loaded = keras_hub.models.ImageSegmenter.from_preset(str(tmp_path / "preset"))
    expected = deeplab.predict(images, verbose=0)
    assert expected.shape == (2, 48, 64, 5)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)


def test_heads_start_with_the_prior_of_the_classes(model):
    detector = hub.detector(model, 3, image_size=(64, 64), max_level=5)
    outputs = detector(detector.preprocessor(np.zeros((1, 64, 64, 3), "float32")))
    assert np.asarray(outputs["cls_logits"]).mean() == pytest.approx(np.log(0.01 / 0.99), abs=0.3)
    assert abs(np.asarray(outputs["bbox_regression"])).mean() < 1.5


def test_models_that_do_not_fit_are_refused(model):
    with pytest.raises(ValueError, match=r"an image_size with sides divisible by 32; received: image_size=\(64, 100\)"):
        hub.detector(model, 3, image_size=(64, 100))
    with pytest.raises(ValueError, match=r"an image_size with sides divisible by 16; received: image_size=\(64, 100\)"):
        hub.deeplab(model, 3, image_size=(64, 100))
    plain = keras_t2t.ViTSmall16(weights=None, input_shape=(32, 32, 3), classes=2)
    with pytest.raises(ValueError, match=r"vit_small_16 has no feature map P3\. It has P4, P5; received: min_level=3"):
        hub.detector(plain, 3, image_size=(64, 64))
    with pytest.raises(ValueError, match="Expected a classifier with at most one activation"):
        hub.classifier(keras_t2t.T2TViT(CONFIG, include_top=False))
    pooled = keras_t2t.replace_head(keras_t2t.T2TViT(CONFIG, include_top=False, pooling="avg", input_shape=(*SIZE, 3)), 4)
    with pytest.raises(ValueError, match="Expected a classifier on the class token"):
        hub.classifier(pooled)
    cut_off = keras.Model(model.input, model.get_layer("block1").output)
    with pytest.raises(ValueError, match=r"backbone of a T2T-ViT; received: .*, which ends early"):
        hub.backbone(cut_off)
    adapter = keras.layers.Dense(18, name="adapter")

    def call(operation, *args, **kwargs):
        output = operation(*args, **kwargs)
        return adapter(output) if operation.name == "block0" else output

    adapted = keras.Model(model.input, run_graph(model, model.input, call), name="adapted")
    with pytest.raises(ValueError, match="backbone of a T2T-ViT; received: 'adapted', which has 'adapter' in between"):
        hub.backbone(adapted)


class TestFaultsOfKerasHub:
    """Each of these tests fails when KerasHub mends a fault, so that the code that works around it can go."""

    def test_the_heads_of_retinanet_are_initialized_the_wrong_way_round(self, model):
        backbone = keras_hub.models.RetinaNetBackbone(
            hub.backbone(model, (64, 64, 3)), 3, 5, use_p5=False, image_shape=(64, 64, 3)
        )
        detector = keras_hub.models.RetinaNetObjectDetector(backbone, 3, "xyxy")
        biases = [np.asarray(head.prediction_layer.bias) for head in (detector.box_head, detector.classification_head)]
        assert biases[0].max() < -4 and not biases[1].any()

    def test_detectors_take_no_metrics(self, model):
        detector = hub.detector(model, 3, image_size=(64, 64), max_level=5)
        with pytest.raises(ValueError, match="User metrics not yet supported"):
            detector.compile(metrics=["accuracy"])

    def test_detectors_predict_batches_of_one_size_only(self, model):
        detector = hub.detector(model, 3, image_size=(64, 64), max_level=5)
        detector.predict(np.zeros((2, 64, 64, 3), "float32"), verbose=0)
        with pytest.raises(TypeError, match="NonMaxSuppression"):
            detector.predict(np.zeros((1, 64, 64, 3), "float32"), verbose=0)

    def test_the_default_loss_of_segmenters_wants_one_hot_masks(self, model):
        deeplab = hub.deeplab(model, 3, image_size=(32, 32))
        deeplab.compile()
        with pytest.raises(ValueError):
            deeplab.fit(np.zeros((1, 32, 32, 3)), np.zeros((1, 32, 32)), verbose=0)

    def test_image_converters_crop(self):
        assert keras_hub.layers.ImageConverter((8, 8)).crop_to_aspect_ratio

    def test_segformer_needs_a_level_below(self, model):
        encoder = hub.backbone(model, (64, 64, 3))
        with pytest.raises(KeyError, match="P1"):
            keras_hub.models.SegFormerBackbone(encoder, projection_filters=8)

    def test_presets_in_mixed_precision_need_a_dtype(self, tmp_path):
        backbone = hub.T2TViTBackbone(CONFIG, (*SIZE, 3), dtype="mixed_bfloat16")
        hub.T2TViTImageClassifier(backbone, 5).save_to_preset(tmp_path / "preset")
        with pytest.raises(ValueError, match="Invalid dtype: mixed_bfloat16"):
            keras_hub.models.ImageClassifier.from_preset(str(tmp_path / "preset"))


def test_a_classifier_of_a_model_of_any_size():
    any_size = keras_t2t.T2TViT(
        CONFIG, include_top=False, pooling="token", preprocessing=keras_t2t.Preprocessing(image_size=(32, 48))
    )
    model = keras_t2t.replace_head(any_size, 3)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 48, 3)).astype("float32")
    np.testing.assert_allclose(
        hub.classifier(model).predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-4, atol=1e-5
    )
