"""However a model travels, the same picture is prepared for it in the same way, which Pillow and numpy compute here."""

import dataclasses

import keras
import numpy as np
import PIL.Image
import pytest

import keras_t2t
from keras_t2t.models import parts, spec_of
from keras_t2t.preprocessing import CIFAR_MEAN, CIFAR_STD, IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing
from keras_t2t.recipes.named import finetune
from keras_t2t.registry import PUBLISHED_WEIGHTS, SHIPPED_WEIGHTS
from keras_t2t.training import RECIPES
from keras_t2t.training.trainer import build_model
from tests.conftest import CONSTRUCTORS, SMALL_CONFIGS, mostly_slow

ODD = Preprocessing(image_size=(31, 46), crop_fraction=0.8, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
FILTERS = {"bilinear": PIL.Image.Resampling.BILINEAR, "bicubic": PIL.Image.Resampling.BICUBIC}


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A picture with smooth areas and edges, neither square nor of the ratio of any model."""
    y, x = np.mgrid[:120, :101]
    waves = [np.sin(x / 9 + i) * np.cos(y / 7 - i) + ((x // 31 + y // 23 + i) % 2) for i in range(3)]
    pixels = np.clip(127 + 60 * np.stack(waves, -1), 0, 255).astype("uint8")
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    PIL.Image.fromarray(pixels).save(path)
    return path


def prepared_by_pillow(path, preprocessing):
    """Returns the normalized image (1, H, W, 3)."""
    image, (height, width) = PIL.Image.open(path), preprocessing.image_size
    targets = [int(side / preprocessing.crop_fraction) for side in (width, height)]
    scale = max(target / side for target, side in zip(targets, image.size, strict=True))
    size = [max(round(side * scale), least) for side, least in zip(image.size, (width, height), strict=True)]
    resized = image.resize(size, FILTERS[preprocessing.interpolation])
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    pixels = np.asarray(resized.crop((left, top, left + width, top + height)), "float64")
    return ((pixels / 255 - preprocessing.mean) / preprocessing.std)[None]


def check(model, picture, preprocessing=ODD):
    """Checks what a model computes on, up to the rounding of Pillow: half a gray level on average."""
    assert keras_t2t.preprocessing_of(model) == preprocessing
    layer = next(layer for layer in parts.layers_of(model) if isinstance(layer, keras_t2t.layers.ImageNormalization))
    normalized = np.array(layer(keras_t2t.load_image(picture, model)))
    difference = np.abs(normalized - prepared_by_pillow(picture, preprocessing)) * preprocessing.std * 255
    assert difference.mean() < 0.5 and difference.max() < 4


def small_model(**kwargs):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["patches"])
    return keras_t2t.T2TViT(config, input_shape=(31, 46, 3), classes=4, preprocessing=ODD, **kwargs)


def with_own_head(model):
    return keras.Model(model.input, keras.layers.Dense(3, activation="softmax")(model.output))


def saved(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def from_file(model, tmp_path):
    """The weights of another model, of whose file only the path is given."""
    model.save(tmp_path / "model.keras")
    config = keras_t2t.config_of(model)
    return keras_t2t.T2TViT(config, weights=tmp_path / "model.keras", input_shape=(31, 46, 3), classes=4)


def from_h5_file(model, tmp_path):
    model.save(tmp_path / "model.h5")
    config = keras_t2t.config_of(model)
    return keras_t2t.T2TViT(config, weights=tmp_path / "model.h5", input_shape=(31, 46, 3), classes=4)


WAYS = {
    "built": lambda model, _: model,
    "saved": saved,
    "loaded from a file of weights": from_file,
    "loaded from an HDF5 file of weights": from_h5_file,
    "cloned": lambda model, _: keras.models.clone_model(model),
    "with a new head": lambda model, _: keras_t2t.replace_head(model, ["a", "b"]),
    "optimized": lambda model, _: keras_t2t.optimize_for_inference(model),
    "optimized and saved": lambda model, tmp_path: saved(keras_t2t.optimize_for_inference(model), tmp_path),
    "cut": lambda model, _: keras.Model(model.input, model.get_layer("block0").output),
    "nested": lambda model, _: keras.Sequential([keras.Input((31, 46, 3)), model, keras.layers.Dense(2)]),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_of_a_keras_model(way, picture, tmp_path):
    check(WAYS[way](small_model(), tmp_path), picture)


def test_a_head_of_your_own(picture, tmp_path):
    check(saved(with_own_head(small_model(include_top=False, pooling="token")), tmp_path), picture)


def test_without_preprocessing_inside(picture, tmp_path):
    model = saved(small_model(include_preprocessing=False), tmp_path)
    check(model, picture)
    image = keras_t2t.load_image(picture, model)
    assert np.abs(image - prepared_by_pillow(picture, ODD)).mean() < 0.01  # normalized before the model
    inside = small_model()
    inside.set_weights(model.get_weights())
    expected = inside.predict(keras_t2t.load_image(picture, inside), verbose=0)
    np.testing.assert_allclose(model.predict(image, verbose=0), expected, rtol=1e-4, atol=1e-6)


MEAN, VARIANCE = np.multiply(255, ODD.mean), np.square(np.multiply(255, ODD.std))


class Standardize(keras.layers.Layer):
    def call(self, images):
        return (images - MEAN.astype("float32")) / np.sqrt(VARIANCE).astype("float32")


SCALINGS = {
    "own layer": Standardize(),
    "Normalization": keras.layers.Normalization(mean=MEAN, variance=VARIANCE),
    "Lambda": keras.layers.Lambda(lambda x: (x - MEAN) / VARIANCE**0.5),
    "operations": lambda x: (x - MEAN.astype("float32")) / np.sqrt(VARIANCE).astype("float32"),
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_images_are_scaled_by_another_layer(kind, picture):
    """Then they are not normalized before the model."""
    images = keras.Input((31, 46, 3))
    model, inside = small_model(include_preprocessing=False), small_model()
    inside.set_weights(model.get_weights())
    outer = keras.Model(images, model(SCALINGS[kind](keras.layers.RandomFlip()(images))))
    ours, expected = (dict(keras_t2t.predict_images(one, [picture], top=4)[0]) for one in (outer, inside))
    assert ours == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("layer", [keras.layers.Rescaling(1 / 255), keras.layers.Normalization(mean=MEAN, variance=VARIANCE)])
def test_models_that_scale_their_images_twice_are_refused(layer, picture):
    images = keras.Input((31, 46, 3))
    model = keras.Model(images, keras.Sequential([layer, small_model()])(images))
    message = "Expected a model that scales its images once. The images of .* are scaled before they reach <ImageNormalization"
    with pytest.raises(ValueError, match=message):
        keras_t2t.predict_images(model, [picture])


@pytest.mark.parametrize("enabled", [False, True])
def test_layers_that_only_move_pixels_do_not_count(enabled):
    images, model = keras.Input((62, 92, 3)), small_model(include_preprocessing=enabled)
    moved = keras.layers.Lambda(lambda x: keras.ops.flip(keras.ops.image.resize(x, (31, 46)), 1))(images)
    assert spec_of(keras.Model(images, model(moved))).normalizes is enabled


def test_models_that_do_not_take_one_image():
    model, second, flat = small_model(), keras.Input((7,), name="second"), keras.Input((31, 138))
    two = keras.Model([model.input, second], keras.layers.Concatenate()([model.output, second]), name="two")
    reshaped = keras.Model(flat, model(keras.layers.Reshape((31, 46, 3))(flat)), name="reshaped")
    for wrong, shapes in ((two, r"\(None, 31, 46, 3\), \(None, 7\)"), (reshaped, r"\(None, 31, 138\)")):
        for function in (keras_t2t.preprocessing_of, spec_of, lambda model: keras_t2t.replace_head(model, 3)):
            with pytest.raises(ValueError, match=f"one input, for images of .*; received: '{wrong.name}' with .* {shapes}$"):
                function(wrong)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("model.tflite", {}),
        *mostly_slow(
            [
                ("model.tflite", {"include_preprocessing": False}),
                ("model.onnx", {"classifier_activation": None}),
                ("model", {"include_preprocessing": False, "classifier_activation": None}),
            ]
        ),
    ],
)
def test_exported_files(name, kwargs, picture, tmp_path):
    model = small_model(**kwargs)
    keras_t2t.export(model, tmp_path / name)
    runtime = keras_t2t.open_exported(tmp_path / name)
    assert runtime.spec == spec_of(model)
    np.testing.assert_array_equal(keras_t2t.load_image(picture, runtime), keras_t2t.load_image(picture, model))
    ours, theirs = (keras_t2t.predict_images(one, [picture, picture], top=4) for one in (model, runtime))
    for expected, received in zip(ours, theirs, strict=True):
        assert [label for label, _ in received] == [label for label, _ in expected]
        np.testing.assert_allclose([p for _, p in received], [p for _, p in expected], atol=1e-5)
        assert sum(p for _, p in received) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_a_saved_model_classifies_encoded_images_as_they_are_prepared_here(picture, tmp_path):
    import tensorflow as tf

    paths, exif = [picture, tmp_path / "turned.jpg", tmp_path / "glass.png"], PIL.Image.Exif()
    exif[0x112] = 6
    PIL.Image.open(picture).convert("RGB").save(paths[1], exif=exif)
    glass = PIL.Image.open(picture).convert("RGB")
    glass.putalpha(PIL.Image.radial_gradient("L").resize(glass.size))
    glass.save(paths[2])
    model = keras_t2t.replace_head(small_model(include_preprocessing=False), ["a", "b", "c"], None)
    keras_t2t.export(model, tmp_path / "model")
    classify = tf.saved_model.load(str(tmp_path / "model")).signatures["classify"]
    answer = classify(encoded=tf.constant([path.read_bytes() for path in paths]))
    expected = keras_t2t.predict_images(model, paths, top=3)
    labels = [[label.decode() for label in row] for row in answer["labels"].numpy()]
    assert labels == [[label for label, _ in row] for row in expected]
    np.testing.assert_allclose(answer["scores"], [[p for _, p in row] for row in expected], atol=1e-5)
    assert len({p for (_, p), *_ in expected}) == 3  # the pictures differ to the model


@pytest.mark.parametrize("weights", PUBLISHED_WEIGHTS + SHIPPED_WEIGHTS, ids=lambda w: f"{w.variant}-{w.name}")
def test_pretrained_weights(weights, picture, monkeypatch):
    """Facts: see the registry. CIFAR's images were resized whole and bilinearly, and normalized with their own statistics."""
    cifar = weights.name.startswith("cifar") and weights.variant != "t2t_vit_tiny_32"
    size = {"imagenet_384": 384}.get(weights.name, 32 if weights.variant == "t2t_vit_tiny_32" else 224)
    expected = Preprocessing(
        image_size=(size, size),
        crop_fraction=1.0 if cifar or size in (32, 384) else 0.9,
        interpolation="bilinear" if cifar else "bicubic",
        mean=CIFAR_MEAN if cifar else IMAGENET_MEAN,
        std=CIFAR_STD if cifar else IMAGENET_STD,
    )
    assert weights.preprocessing == expected
    monkeypatch.setattr("keras_t2t.weights.initial.load_pretrained", lambda model, weights: None)
    monkeypatch.setattr("keras_t2t.applications.encode", shallow_encode)
    check(CONSTRUCTORS[weights.variant](weights=weights.name), picture, expected)


def shallow_encode(images, config, **kwargs):
    from keras_t2t.models import encode

    depth = (1,) if config.block == "dense" else 1
    return encode(images, dataclasses.replace(config, depth=depth), **kwargs)


@pytest.mark.parametrize("name", [*RECIPES, "finetune", "changed"])
def test_trained_models(name, picture):
    recipe = RECIPES.get(name) or finetune(1000)
    if name == "changed":
        recipe = recipe.replace(eval_crop_fraction=0.7, eval_interpolation="bilinear", mean="0.1,0.2,0.3", std="0.4,0.5,1")
    expected = Preprocessing(
        image_size=(recipe.image_size, recipe.image_size),
        crop_fraction={"imagenet_384": 1.0, "transfer": 1.0, "small_images": 1.0, "changed": 0.7}.get(name, 0.9),
        interpolation="bilinear" if name in ("transfer", "changed") else "bicubic",
        mean={"transfer": CIFAR_MEAN, "changed": (0.1, 0.2, 0.3)}.get(name, IMAGENET_MEAN),
        std={"transfer": CIFAR_STD, "changed": (0.4, 0.5, 1)}.get(name, IMAGENET_STD),
    )
    check(build_model(recipe.replace(model="t2t_vit_tiny_32"), ["a", "b"], "softmax"), picture, expected)


def test_training_keeps_the_normalization_of_the_weights_that_it_starts_from(picture, tmp_path):
    start = Preprocessing(image_size=(32, 32), crop_fraction=0.5, mean=CIFAR_MEAN, std=CIFAR_STD)
    keras_t2t.T2TViTTiny32(weights=None, preprocessing=start).save(tmp_path / "model.keras")
    recipe = RECIPES["small_images"]
    model = build_model(recipe, ["a", "b"], weights=tmp_path / "model.keras")
    check(model, picture, dataclasses.replace(start, crop_fraction=recipe.eval_crop_fraction))


def test_models_of_any_size_carry_the_size_that_they_were_measured_at(picture):
    model = keras_t2t.T2TViTTiny32(weights="cifar10", include_top=False)
    check(model, picture, SHIPPED_WEIGHTS[0].preprocessing)


def test_grayscale_models(picture):
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["patches"]), input_shape=(31, 46, 1), preprocessing=ODD)
    expected = dataclasses.replace(ODD, mean=(0.5,), std=(0.5,))
    assert keras_t2t.preprocessing_of(model) == expected
    pixels = (prepared_by_pillow(picture, ODD) * ODD.std + ODD.mean) * 255
    gray = pixels @ np.array([0.299, 0.587, 0.114])[:, None]
    assert np.abs(keras_t2t.load_image(picture, model) - gray).mean() < 0.5
    images = np.array([[[[0], [255]]]])
    np.testing.assert_allclose(model.get_layer("normalization")(images), [[[[-1], [1]]]], atol=1e-6)
    with pytest.raises(ValueError, match="this one takes images with 2 channels"):
        two = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["patches"]), input_shape=(31, 46, 2))
        keras_t2t.load_image(picture, two)


def test_preprocess_input_leaves_images_alone():
    """Whatever a model is built with, and in a `tf.data` map of integers."""
    import tensorflow as tf

    images = np.arange(24, dtype="uint8").reshape(1, 2, 4, 3)
    assert keras_t2t.preprocess_input(images) is images
    dataset = tf.data.Dataset.from_tensor_slices(images)
    np.testing.assert_array_equal(next(dataset.map(keras_t2t.preprocess_input).as_numpy_iterator()), images[0])
    normalized = next(dataset.map(lambda image: keras_t2t.normalize_images(image, ODD)).as_numpy_iterator())
    np.testing.assert_allclose(normalized, (images[0] / 255 - ODD.mean) / ODD.std, rtol=1e-4, atol=1e-6)
    assert normalized.dtype == np.float32


def test_models_of_other_packages():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match=r"Expected a model built by keras_t2t, .* add keras_t2t\.layers\.ImageNormalization"):
        keras_t2t.preprocessing_of(model)


def test_models_with_named_outputs_and_models_without_inputs(picture):
    model = keras_t2t.T2TViTTiny32()
    named = keras.Model(model.input, {"scores": model.output})
    assert keras_t2t.predict_images(named, [picture]) == keras_t2t.predict_images(model, [picture])
    with pytest.raises(ValueError, match=r"received: 'sequential.*' without inputs\. Start it with keras\.Input"):
        keras_t2t.predict_images(keras.Sequential([keras.layers.RandomFlip(), model]), [picture])


@pytest.mark.parametrize(
    ("mean", "std", "mean_level", "std_level"),
    [
        (IMAGENET_MEAN, IMAGENET_STD, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        (CIFAR_MEAN, CIFAR_STD, (125.307, 122.961, 113.8575), (51.5865, 50.847, 51.255)),
    ],
)
def test_constants_of_the_datasets(mean, std, mean_level, std_level):
    """In gray levels, OpenMMLab's configurations list the same values for ImageNet. Those for CIFAR are the authors'."""
    images = np.array([[[mean_level, np.add(mean_level, std_level)]]])
    normalized = keras_t2t.normalize_images(images, Preprocessing(mean=mean, std=std))
    np.testing.assert_allclose(normalized, [[[[0.0] * 3, [1.0] * 3]]], atol=1e-5)


def test_normalization_refuses_other_channels():
    with pytest.raises(ValueError, match=r"expected images with 3 channels, .* received: input_shape=\(1, 2, 2, 1\)"):
        keras_t2t.layers.ImageNormalization(ODD)(np.zeros((1, 2, 2, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (0, 3)}, r"image_size: expected \(height, width\) in pixels; received: image_size=\(0, 3\)"),
        ({"crop_fraction": 0}, r"crop_fraction: expected a number in \(0, 1\]; received: crop_fraction=0"),
        ({"crop_fraction": 1.1}, r"received: crop_fraction=1.1"),
        ({"interpolation": "cubic"}, r"interpolation: expected one of \('area', 'bicubic'.*received: interpolation='cubic'"),
        ({"std": (1, 0, 1)}, r"std: expected a number in \(0, 1\] for each channel, .*; received: std=\(1, 0, 1\)"),
        ({"std": (0.2, 58.4, 0.2)}, r"std: expected a number in \(0, 1\] for each channel, for pixels in \[0, 1\]; received"),
        ({"mean": (0, 0.5, 1.5)}, r"mean: expected a number in \[0, 1\] for each channel, .*; received: mean=\(0, 0.5, 1.5\)"),
        ({"mean": 0.5}, r"mean: expected a number in \[0, 1\] for each channel, .*; received: mean=0\.5"),
        ({"mean": (0.5, "a", 0.5)}, r"mean: expected a number in \[0, 1\] for each channel, .*; received: mean=\(0\.5, 'a'"),
        ({"std": (0.2, float("nan"), 0.2)}, r"std: expected a number in \(0, 1\] for each channel.*; received: std=.*nan"),
        ({"std": (1, 1)}, r"std: expected a number in \(0, 1\] for each channel"),
        ({"mean": ()}, r"mean: expected a number in \[0, 1\] for each channel, .*; received: mean=\(\)"),
    ],
)
def test_invalid_records(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**arguments)


def test_numpy_numbers_can_be_stored():
    preprocessing = Preprocessing(
        image_size=np.array([31, 46]).tolist(), crop_fraction=np.float32(0.5), mean=np.float32([0.25]), std=np.float32([0.5])
    )
    spec = ModelSpec(preprocessing=preprocessing, normalizes=True, output="logits")
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_specs_as_text():
    spec = ModelSpec(preprocessing=ODD, normalizes=False, output="scores", labels=("ä", "two\nlines"))
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.from_json(dataclasses.replace(spec, labels=None).to_json()).labels is None
    for text in ("[]", "{}", '{"labels": null, "preprocessing": {"size": 3}}'):
        with pytest.raises(ValueError, match="Expected the JSON of a ModelSpec; received:"):
            ModelSpec.from_json(text)
    with pytest.raises(ValueError, match="Invalid value for output"):
        dataclasses.replace(spec, output="classes")


def test_interpolations_are_those_of_tensorflow():
    import tensorflow as tf

    from keras_t2t.preprocessing import INTERPOLATIONS

    assert sorted(value for name, value in vars(tf.image.ResizeMethod).items() if name.isupper()) == list(INTERPOLATIONS)


@pytest.mark.parametrize("size", [224, (224.7, 224), (224,), (0, 3)])
def test_an_invalid_image_size(size):
    with pytest.raises(ValueError, match=r"image_size.*\(height, width\) in pixels"):
        keras_t2t.Preprocessing(image_size=size)
