"""Files saved by PyTorch, in the forms in which T2T-ViT was published, give the logits of the original model."""

import json

import numpy as np
import pytest

import keras_t2t
from tests.conftest import DATA, relative_error
from tests.reference_parameters import reference_images, reference_parameter

FILES = json.loads((DATA / "checkpoints" / "expected.json").read_text())
FORMS = {
    "t2t_tiny_ema_legacy.pth.tar": ("state_dict_ema", (), "authors"),
    "t2t_tiny_training_zip.pth.tar": ("state_dict_ema", ("module.",), "authors"),
    "t2t_tiny_mmpretrain.pth": ("state_dict", ("backbone.",), "openmmlab"),
    "t2t_tiny_half_bare.pth": (None, (), "authors"),
}


def build(file, **kwargs):
    expected = dict(FILES[file])
    size, classes = expected.pop("image_size"), expected.pop("num_classes")
    expected.pop("seed_of_images")
    config = keras_t2t.T2TConfig(**expected)
    arguments = {"include_preprocessing": False, "classifier_activation": None, **kwargs}
    return keras_t2t.T2TViT(config, input_shape=(size, size, 3), classes=classes, **arguments)


@pytest.mark.parametrize("file", FILES)
def test_logits_and_report(file):
    path = DATA / "checkpoints" / file
    model = build(file)
    report = keras_t2t.load_checkpoint(model, path)
    entry, prefixes, layout = FORMS[file]
    assert report == keras_t2t.LoadReport(str(path), entry, prefixes, layout, len(model.weights), (), ())
    logits = model.predict(reference_images(3, 64, 64, FILES[file]["seed_of_images"]), verbose=0)
    expected = np.load(DATA / "checkpoints" / "expected.npz")
    if file == "t2t_tiny_half_bare.pth":  # has no reference logits, but its weights are the seeded ones in float16
        norm = reference_parameter("blocks.1.norm2.weight", (64,), FILES[file]["seed_of_images"])
        weight = np.asarray(model.get_layer("block1").norm2.gamma)
        assert np.isfinite(logits).all()
        np.testing.assert_array_equal(weight, norm.astype("float16").astype("float32"))
    else:
        assert relative_error(logits, expected[f"{file}/logits"]) < 1e-5


def test_constructors_load_the_same_files():
    file = "t2t_tiny_mmpretrain.pth"
    model = build(file, weights=DATA / "checkpoints" / file)
    logits = model.predict(reference_images(3, 64, 64, FILES[file]["seed_of_images"]), verbose=0)
    assert relative_error(logits, np.load(DATA / "checkpoints" / "expected.npz")[f"{file}/logits"]) < 1e-5
