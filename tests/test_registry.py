"""The registry is consistent with itself, the constructors and the model cards."""

import json
import pathlib
import re

import keras
import numpy as np
import pytest

import keras_t2t
from keras_t2t.assets import class_names
from keras_t2t.registry import PUBLISHED_WEIGHTS, SHIPPED_WEIGHTS, pretrained_weights_of
from keras_t2t.variants import VARIANTS
from keras_t2t.weights import pretrained
from tests.conftest import CONSTRUCTORS

REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("source", PUBLISHED_WEIGHTS, ids=lambda source: f"{source.variant}-{source.name}")
def test_published_weights(source, monkeypatch):
    monkeypatch.delenv("KERAS_T2T_WEIGHTS_URL", raising=False)
    assert source.variant in VARIANTS
    assert re.fullmatch(r"https://[a-z./A-Z0-9-]+/[\w.-]+\.pth(\.tar)?", source.url)
    # File names contain the rounded accuracy or the first digits of the digest.
    if source.name == "imagenet_openmmlab":
        assert source.url.endswith(f"-{source.digest.removeprefix('sha256:')}.pth")
    else:
        (top1,) = re.findall(r"\d\d\.\d", source.file)
        assert abs(float(top1) - source.top1) <= 0.05 + 1e-9
    names = class_names(source.dataset)
    duplicates = 2 if source.dataset == "imagenet" else 0  # two birds and two machines share a name
    assert source.classes == len(names) == len(set(names)) + duplicates
    assert f'"{source.name}"' in CONSTRUCTORS[source.variant].__doc__


def test_shipped_weights_need_no_network_and_state_their_accuracy(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "no_cache"))
    monkeypatch.setattr(pretrained, "fetch", lambda weights: pytest.fail("the network was used"))
    (source,) = SHIPPED_WEIGHTS
    assert source.path.stat().st_size < 12e6
    # The result was measured after training, in bfloat16. The page gives the accuracy of the float32 model for each class, on
    # 1,000 images.
    assert abs(source.top1 - 100 * json.loads((source.path.parent / "result.json").read_text())["ema_accuracy"]) < 0.05
    model_cards = (source.path.parents[1] / "README.md").read_text()
    (classes,) = (line for line in model_cards.splitlines() if line.endswith(f"| {source.top1}% |"))
    *accuracies, _ = (float(cell.strip(" %")) for cell in classes.strip("|").split("|"))
    assert len(accuracies) == 10 and source.top1 == round(sum(accuracies) / 10, 2)
    assert f"| {source.top1}% | {source.top5}% |" in model_cards
    model = keras_t2t.T2TViTTiny32(weights="cifar10")
    paths = sorted((REPOSITORY / "examples" / "images").glob("*.jpg"))
    images = keras_t2t.data.load_images(paths, model)
    probabilities = model.predict(images, verbose=0)
    predicted = [keras_t2t.labels_of(model)[index] for index in probabilities.argmax(1)]
    assert len(paths) == 10 and predicted == [path.stem for path in paths]  # the first test image of each class
    saved = keras.models.load_model(source.path)
    assert keras_t2t.labels_of(saved) == keras_t2t.labels_of(model)
    np.testing.assert_allclose(saved.predict(images, verbose=0), probabilities, atol=1e-6)
    assert not (tmp_path / "no_cache").exists()


def test_names_are_unique():
    assert len({(source.variant, source.name) for source in PUBLISHED_WEIGHTS}) == len(PUBLISHED_WEIGHTS) == 17
    assert list(pretrained_weights_of("t2t_vit_14")) == ["imagenet", "imagenet_384", "cifar10", "cifar100"]
    assert list(pretrained_weights_of("t2t_vit_t_19")) == ["imagenet", "imagenet_openmmlab"]
    assert list(pretrained_weights_of("t2t_vit_tiny_32")) == ["cifar10"]
    assert pretrained_weights_of("vit_small_16") == pretrained_weights_of(None) == {}


def test_verified_by():
    verified_by = {
        source.name: source.verified_by for source in PUBLISHED_WEIGHTS if source.variant in ("t2t_vit_14", "t2t_vit_t_14")
    }
    assert verified_by["imagenet_384"] == "names and shapes"
    assert verified_by["imagenet_openmmlab"] == "SHA-256, first 8 digits"
    assert pretrained_weights_of("t2t_vit_14")["imagenet"].verified_by == "SHA-384"


@pytest.mark.parametrize(
    ("constructor", "weights", "message"),
    [
        (keras_t2t.T2TViT24, "cifar10", r"'imagenet' \(published\), or the path to .* Received: weights=cifar10"),
        (keras_t2t.T2TViTt14, "imagenet_384", r"'imagenet' \(published\), 'imagenet_openmmlab' \(published\), or the path"),
        (keras_t2t.ViTSmall16, "imagenet", r"either `None` \(random initialization\), or the path to"),
        (keras_t2t.T2TViT7, "no/such.pth", "Received: weights=no/such.pth"),
    ],
)
def test_the_error_for_unknown_weights_lists_the_known_ones(constructor, weights, message):
    with pytest.raises(ValueError, match=message):
        constructor(weights=weights)
