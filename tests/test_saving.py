"""Saved models come back bit by bit, and the names of weights do not change."""

import inspect
import json
import zipfile

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t import assets
from keras_t2t.variants import VARIANTS
from tests.conftest import DATA, SMALL_CONFIGS, mostly_slow, outputs_of, variant_model

GOLDEN = DATA / "weights.json"
SHIPPED = assets.folder("saved_models") / "t2t_vit_tiny_32_cifar10" / "model.keras"


def build(config, **kwargs):
    model = keras_t2t.T2TViT(config, input_shape=(31, 23, 2), classes=5, **kwargs)
    randomize(model)
    return model


def randomize(model):
    rng = np.random.default_rng(0)
    model.set_weights([value + 0.1 * rng.standard_normal(value.shape).astype(value.dtype) for value in model.get_weights()])


@pytest.fixture
def x():
    return np.random.default_rng(1).uniform(0, 255, (3, 31, 23, 2)).astype("float32")


@pytest.mark.parametrize(
    ("small_config", "kwargs"),
    [
        *mostly_slow([(kind, {}) for kind in SMALL_CONFIGS], ("performer", {})),
        ("performer", {"include_top": False}),  # these change the last layers, which are the same for every kind
        ("performer", {"include_top": False, "pooling": "token"}),
    ],
    indirect=["small_config"],
)
def test_keras_file_round_trip_is_bit_equal(small_config, kwargs, x, tmp_path):
    model = build(small_config, **kwargs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs_of(loaded, x), outputs_of(model, x))
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]
    assert [w.trainable for w in loaded.weights] == [w.trainable for w in model.weights]


@pytest.mark.parametrize("small_config", mostly_slow(SMALL_CONFIGS, "ghost"), indirect=True)
def test_weights_file_round_trip_is_bit_equal(small_config, x, tmp_path):
    model, other = build(small_config), keras_t2t.T2TViT(small_config, input_shape=(31, 23, 2), classes=5)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(outputs_of(other, x), outputs_of(model, x))


@pytest.mark.parametrize("small_config", mostly_slow(SMALL_CONFIGS, "dense"), indirect=True)
def test_clones_give_equal_outputs(small_config, x):
    model = build(small_config)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(outputs_of(clone, x), outputs_of(model, x))


@pytest.mark.parametrize("small_config", mostly_slow(SMALL_CONFIGS, "performer"), indirect=True)
def test_frozen_layers_stay_frozen(small_config, tmp_path):
    model = build(small_config)
    for layer in model.layers[:-2]:
        layer.trainable = False
    model.save(tmp_path / "model.keras")
    for copy in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert [w.path for w in copy.trainable_weights] == ["head/kernel", "head/bias"]
        for layer in copy.layers:
            layer.trainable = True
        assert len(copy.trainable_weights) == len(build(small_config).trainable_weights)


def test_saving_keeps_mixed_precision(tmp_path):
    model = keras_t2t.T2TViT7(weights=None, dtype="mixed_bfloat16")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert {layer.dtype_policy.name for layer in loaded.layers} == {layer.dtype_policy.name for layer in model.layers}
    assert loaded.get_layer("block3").dtype_policy.name == "mixed_bfloat16"


def test_files_of_the_newest_keras_load():
    """The newest Keras saved the file that comes with the package, and `./scripts/test-lowest` loads it with the oldest one."""
    model = keras_t2t.T2TViTTiny32(weights="cifar10")  # reads only the weights
    images = keras_t2t.data.load_images(sorted(assets.folder("images").glob("*.jpg")), model)
    np.testing.assert_array_equal(outputs_of(keras.models.load_model(SHIPPED), images), outputs_of(model, images))


def test_new_files_are_like_the_shipped_one(tmp_path):
    """So they load wherever the shipped one does. If a new version of Keras writes other files, save the shipped one again."""
    model = keras.models.load_model(SHIPPED)
    model.save(tmp_path / "model.keras")
    (shipped, saved_with), (new, version) = contents(SHIPPED), contents(tmp_path / "model.keras")
    if version < saved_with:
        pytest.skip("older versions of Keras write older files")
    for layer, before, after in zip(model.layers, shipped["config"]["layers"], new["config"]["layers"], strict=True):
        for setting in set(inspect.signature(type(layer).__init__).parameters) - set(before["config"]):
            after["config"].pop(setting, None)  # a setting of ours that the shipped file is too old to have
        for setting in ("activity_regularizer", "autocast"):
            before["config"].pop(setting, None)  # defaults that Keras wrote for layers without `get_config`
    assert new == shipped


def contents(path):
    """Returns the configuration of the model in a file, and the version of Keras that saved it."""

    def without_ids(value):
        if isinstance(value, dict):
            return {key: without_ids(item) for key, item in value.items() if key != "shared_object_id"}
        return [without_ids(item) for item in value] if isinstance(value, list) else value

    with zipfile.ZipFile(path) as archive:
        config, metadata = (json.loads(archive.read(name)) for name in ("config.json", "metadata.json"))
    return without_ids(config), tuple(map(int, metadata["keras_version"].split(".")))


@pytest.mark.parametrize("variant", mostly_slow(VARIANTS, "t2t_vit_7", "t2t_vit_14_se"))
def test_weight_names_and_shapes_do_not_change(variant):
    """Saved files depend on them. `python -m tests.test_saving` writes the golden file again."""
    assert weight_shapes(variant) == json.loads(GOLDEN.read_text())[variant], test_weight_names_and_shapes_do_not_change.__doc__


def weight_shapes(variant):
    return {weight.path: list(weight.shape) for weight in variant_model(variant).weights}


if __name__ == "__main__":
    variants = [
        f'"{name}": {{\n{weights}\n}}'
        for name, weights in (
            (name, ",\n".join(f" {json.dumps(path)}: {shape}" for path, shape in weight_shapes(name).items()))
            for name in VARIANTS
        )
    ]
    GOLDEN.write_text("{\n" + ",\n".join(variants) + "\n}\n")
