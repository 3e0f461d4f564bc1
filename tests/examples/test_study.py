"""The study on an accelerator: its augmentation against Pillow, and a small study on a CPU."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest

from keras_t2t.studies import write_tables
from keras_t2t.training import load_recipe

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "study"


def test_augmentation_agrees_with_pillow(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import jax_augmentation as augmentation

    image = np.random.default_rng(0).integers(0, 200, (13, 17, 3)).astype("uint8")
    image[2:5] = image[2:3]  # some values are more frequent
    picture, values = PIL.Image.fromarray(image), image.astype("float32")
    np.testing.assert_array_equal(augmentation.equalize(values), np.asarray(PIL.ImageOps.equalize(picture)))
    sharper = PIL.ImageEnhance.Sharpness(picture).enhance(1.6)
    np.testing.assert_allclose(augmentation.sharpened(values, 1.6), np.asarray(sharper), atol=1)
    turned = augmentation.warp(values, augmentation.affine("rotate", 0.4, 13, 17))
    expected = picture.rotate(12, PIL.Image.Resampling.BILINEAR, fillcolor=tuple(augmentation.GRAY.astype(int).tolist()))
    np.testing.assert_allclose(turned[3:-3, 3:-3], np.asarray(expected)[3:-3, 3:-3], atol=2)


def test_cutmix_mixes_targets_by_area(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import jax_augmentation as augmentation

    images = np.stack([np.zeros((9, 7, 3)), np.ones((9, 7, 3))]).astype("float32")
    settings = {"cutmix": 1.0, "mixup_prob": 1.0}
    mixed, targets = augmentation.cutmix(jax.random.key(4), images, np.eye(2, dtype="float32"), settings)
    share = float(np.asarray(mixed)[0].mean())
    assert 0 < share < 1
    np.testing.assert_allclose(targets, [[1 - share, share], [share, 1 - share]], rtol=1e-5)


def test_settings_are_those_of_the_recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import study_on_accelerator

    recipe = load_recipe("small_images")
    assert {name: getattr(recipe, name) for name in study_on_accelerator.SETTINGS} == study_on_accelerator.SETTINGS


@pytest.mark.slow
def test_small_study(tmp_path):
    """Two classes that differ in brightness, from half of the images."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 500)):
        for label, name in enumerate(("dark", "light")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 100, (8, 8, 3), "uint8") + 100 * np.uint8(label)
                PIL.Image.fromarray(pixels).save(folder / f"{index}.png")
    (tmp_path / "study.yaml").write_text(
        "{models: [hard_patches_wide], seeds: [0, 1], fractions: [0.5], settings: {image_size: 8, batch_size: 8, epochs: 2, "
        "warmup_epochs: 0, crop_padding: 1}}"
    )
    command = [sys.executable, FOLDER / "study_on_accelerator.py", tmp_path / "study.yaml", "--data", tmp_path / "data"]
    fast_to_compile = {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment = {**os.environ, **fast_to_compile, "PYTHONPATH": str(FOLDER.parents[1])}
    subprocess.run([*command, "--output", tmp_path / "out", "--dtype", "float32"], env=environment, check=True)
    folder = tmp_path / "out" / "hard_patches_wide" / "fraction-0.5" / "seed-1"
    results = json.loads((folder / "result.json").read_text())
    assert (results["images"], results["steps"], results["dtype"]) == (16, 8, "float32")
    assert results["accuracy"] > 0.9
    assert len((folder / "log.csv").read_text().splitlines()) == 3
    assert "| hard_patches_wide |" in write_tables(tmp_path / "out")
