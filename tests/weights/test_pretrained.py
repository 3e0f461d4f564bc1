"""Pretrained weights, from the server to the model: downloading, verifying, caching and loading."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import keras_t2t
from keras_t2t import registry
from keras_t2t.variants import VARIANTS
from keras_t2t.weights import pretrained
from keras_t2t.weights.names import name_map
from tests.conftest import DATA, relative_error, seeded_parameters
from tests.reference_parameters import reference_images
from tests.torch_files import Ordered, legacy_file
from tests.weights.downloads import assert_loaded, files_in, publish_digest

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.slow
def test_imagenet_weights_of_full_size(server, cache, monkeypatch, capfd):
    reference = np.load(DATA / "reference" / "t2t_vit_14.npz")
    shapes = {str(name): json.loads(str(shape)) for name, shape in zip(reference["names"], reference["shapes"], strict=True)}
    parameters = seeded_parameters(VARIANTS["t2t_vit_14"].config, (224, 224), seed=int(reference["seed"]))
    data = legacy_file({"state_dict_ema": Ordered({name: parameters[name].reshape(shape) for name, shape in shapes.items()})})
    assert abs(len(data) - 86_212_823) < 10_000
    server.files["81.5_T2T_ViT_14.pth.tar"] = data
    publish_digest(monkeypatch, data, "t2t_vit_14")

    model = keras_t2t.T2TViT14(weights="imagenet")
    assert "100%" in capfd.readouterr().err  # the progress bar
    assert files_in(cache) == ["81.5_T2T_ViT_14.pth.tar"]
    assert keras_t2t.labels_of(model)[:2] == ("tench", "goldfish")

    server.server_close()  # the second model must read the cache
    second = keras_t2t.T2TViT14(include_preprocessing=False, classifier_activation=None)
    for weight, expected in zip(second.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    logits = second.predict(reference_images(2, 224, 224, int(reference["seed"])), verbose=0)
    assert relative_error(logits, reference["logits"]) < 1e-5
    assert server.requests == ["81.5_T2T_ViT_14.pth.tar"]


@pytest.mark.parametrize("digits", [8, None])
@pytest.mark.slow
def test_openmmlab_weights(server, cache, monkeypatch, digits):
    config = VARIANTS["t2t_vit_t_14"].config
    parameters = seeded_parameters(config, (224, 224))
    state = {}
    for authors, openmmlab in zip(name_map(config, 197), name_map(config, 197, layout="openmmlab"), strict=True):
        prefix = "" if openmmlab.source.startswith("head") else "backbone."
        state[prefix + openmmlab.source] = parameters[authors.source]
    average = {f"ema_{name.replace('.', '_')}": 0 * array for name, array in state.items()}
    data = legacy_file({"meta": {"CLASSES": ["a"]}, "state_dict": Ordered({**state, **average})})
    publish_digest(monkeypatch, data, "t2t_vit_t_14", "imagenet_openmmlab", digits)
    file = registry.pretrained_weights_of("t2t_vit_t_14")["imagenet_openmmlab"].file
    server.files[file] = data
    assert_loaded(keras_t2t.T2TViTt14(weights="imagenet_openmmlab"), parameters)
    assert files_in(cache) == ([file] if digits is None else [file, f"{file}.sha256"])


@pytest.mark.slow
def test_features_with_weights_for_384_pixels_keep_their_positions(server):
    parameters = seeded_parameters(VARIANTS["t2t_vit_14"].config, (384, 384))
    server.files["83.3_T2T_ViT_14.pth.tar"] = legacy_file({"state_dict_ema": Ordered(parameters)})
    path = pretrained.fetch(registry.pretrained_weights_of("t2t_vit_14")["imagenet_384"])
    for weights in ("imagenet_384", path):
        model = keras_t2t.T2TViT14(weights=weights, include_top=False)
        np.testing.assert_array_equal(model.get_layer("position_embedding").table, parameters["pos_embed"][0])
    assert keras_t2t.T2TViT14(weights="imagenet_384").input_shape == (None, 384, 384, 3)


@pytest.mark.parametrize("kwargs", [{"pooling": "token"}, {}, {"input_shape": (64, 96, 3)}])
def test_features_and_other_image_sizes(file, published, kwargs):
    model = keras_t2t.T2TViT7(include_top=False, **kwargs)
    np.testing.assert_array_equal(model.get_layer("norm").beta, published[1]["norm.bias"])
    assert keras_t2t.labels_of(model) is None


@pytest.mark.slow
def test_weights_for_another_dataset_have_its_classes(server):
    config = VARIANTS["t2t_vit_14"].config
    parameters = {f"module.{k}": v.astype("float16") for k, v in seeded_parameters(config, (224, 224), classes=10).items()}
    server.files["cifar10_t2t-vit_14_98.3.pth"] = legacy_file({"net": Ordered(parameters), "acc": 98.3, "epoch": 59})
    for model in (keras_t2t.T2TViT14(weights="cifar10"), keras_t2t.T2TViT("t2t_vit_14", weights="cifar10", classes=10)):
        assert model.output_shape == (None, 10)
        assert keras_t2t.labels_of(model)[3] == "cat"
        np.testing.assert_array_equal(model.get_layer("head").bias, parameters["module.head.bias"].astype("float32"))
    config = dataclasses.replace(config, drop_path_rate=0.1)
    assert keras_t2t.T2TViT(config, weights="cifar10").output_shape == (None, 10)


def test_a_file_copied_to_the_cache_is_used(server, cache, file, published):
    server.shutdown(), server.server_close()
    cache.mkdir(parents=True)
    (cache / file).write_bytes(published[0])
    assert_loaded(keras_t2t.T2TViT7(), published[1])


def test_a_complete_cache_can_be_read_only(cache, file, published):
    keras_t2t.T2TViT7()
    os.chmod(cache, 0o555)
    try:
        assert_loaded(keras_t2t.T2TViT7(), published[1])
    finally:
        os.chmod(cache, 0o755)


@pytest.mark.slow
def test_two_processes_can_download_at_once(cache, file, published):
    code = "import keras_t2t; print(float(sum(abs(w).sum() for w in keras_t2t.T2TViT7().get_weights())))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    expected = sum(np.abs(array).sum(dtype="float64") for array in published[1].values())
    for output, _ in outputs:
        assert abs(float(output) - expected) < 1e-3 * expected
    assert files_in(cache) == [file, f"{file}.sha256"]
    assert_loaded(keras_t2t.T2TViT7(), published[1])


def test_folders_of_killed_processes_are_removed_after_a_day(cache, file):
    old, new = cache / ".temporary-old", cache / ".temporary-new"
    old.mkdir(parents=True), new.mkdir()
    os.utime(old, (0, 0))
    keras_t2t.T2TViT7()
    assert not old.exists() and new.exists()


def test_the_default_cache_is_in_the_keras_home(monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert pretrained.cache_folder() == pathlib.Path("/somewhere/.keras/models/keras_t2t")
