"""The study on an accelerator: its augmentation against Pillow, and a small study on a CPU."""

import json
import math
import os
import pathlib
import re
import subprocess
import sys

import jax
import keras
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest

import keras_t2t
from keras_t2t.cli import main
from keras_t2t.studies import confidence_interval, load_study, write_tables
from keras_t2t.training import load_recipe
from tests.micro import MICRO, add_micro

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
    studies = [load_study(path) for path in FOLDER.glob("*.yaml")]
    assert len(studies) == 5
    for study in studies:
        assert study.recipe == "small_images" and study.settings.keys() <= study_on_accelerator.SETTINGS.keys()


def write_images(folder, size, classes=("dark", "light"), **counts):
    """Writes images of two classes that differ in brightness, `counts` of each for the splits. The first class is darker."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for label, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 100, (size, size, 3), "uint8") + 100 * np.uint8(label)
                PIL.Image.fromarray(pixels).save(folder / split / name / f"{index}.png")


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path, capsys, monkeypatch):
    """A study in two shards, with its costs, and the redundancy of its models."""
    add_micro(monkeypatch)
    write_images(tmp_path / "data", 16, train=16, test=6)
    (tmp_path / "study.yaml").write_text(
        "{models: [micro], seeds: [0, 1], settings: {image_size: 16, batch_size: 8, epochs: 1, warmup_epochs: 0}}"
    )
    for arguments in (["--shard", "1/2"], ["--shard", "2/2", "--measure"]):
        command = ["keras-t2t", "study", "study.yaml", "--data", "data", "--output", "out", *arguments]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as exit:
            main()
        assert exit.value.code == 0
    two_classes = keras_t2t.T2TViT(MICRO, weights=None, classes=2, input_shape=(16, 16, 3))
    (row,) = json.loads(pathlib.Path("out/results.json").read_text())
    assert row["seeds"] == [0, 1] and row["parameters"] == two_classes.count_params()
    monkeypatch.syspath_prepend(str(FOLDER))
    import redundancy

    redundancy.main(["out", "--data", "data", "--output", "out", "--images", "4"])
    seeds = [keras.models.load_model(f"out/micro/fraction-1/seed-{seed}/model.keras") for seed in (0, 1)]
    images = redundancy.read_images(pathlib.Path("data"), 4)
    assert images.shape == (4, 16, 16, 3)
    entropies = [comparison.summary()["entropy"] for comparison in keras_t2t.analysis.compare(seeds, images)]
    mean, half_width = confidence_interval(entropies)
    columns = pathlib.Path("out/redundancy.md").read_text().splitlines()[2].split(" | ")
    assert columns[0] == "| micro" and columns[3] == f"{mean:.3g} ± {half_width:.2g}"
    assert keras.utils.img_to_array(keras.utils.load_img("out/redundancy.png")).std() > 1
    with pytest.raises(SystemExit, match="Found no T2T-ViT with its weights in data"):
        redundancy.main(["data", "--data", "data", "--output", "out", "--images", "4"])


def run_on_accelerator(folder, data, output, *options):
    """Runs a small study on all and on half of the images, and returns the results of a run on all and the lines of its log."""
    (folder / "study.yaml").write_text(
        "{models: [hard_patches_wide], seeds: [0, 1], fractions: [0.5, 1.0], settings: {image_size: 8, batch_size: 8, "
        "epochs: 4, warmup_epochs: 0, crop_padding: 1, label_smoothing: 0.0}}"
    )
    command = [sys.executable, FOLDER / "study_on_accelerator.py", folder / "study.yaml", "--data", data, "--output", output]
    fast_to_compile = {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment = {**os.environ, **fast_to_compile, "PYTHONPATH": str(FOLDER.parents[1])}
    subprocess.run([*command, "--dtype", "float32", *options], env=environment, check=True, stderr=subprocess.PIPE, text=True)
    run = output / "hard_patches_wide" / "fraction-1" / "seed-1"
    return json.loads((run / "result.json").read_text()), (run / "log.csv").read_text().splitlines()


@pytest.mark.slow
def test_small_study_with_a_teacher(tmp_path):
    """Two classes that differ in brightness. A teacher trained with swapped classes makes every target 1/2."""
    write_images(tmp_path / "data", 8, train=16, test=500)
    write_images(tmp_path / "swapped", 8, ("light", "dark"), train=16, test=500)
    results, log = run_on_accelerator(tmp_path, tmp_path / "swapped", tmp_path / "teacher", "--save")
    assert (results["images"], results["steps"], results["dtype"]) == (32, 16, "float32")
    assert results["accuracy"] > 0.9
    assert len(log) == 5 and float(log[-1].split(",")[1]) < 0.3
    assert "| hard_patches_wide | " in write_tables(tmp_path / "teacher")
    half = json.loads((tmp_path / "teacher" / "hard_patches_wide" / "fraction-0.5" / "seed-1" / "result.json").read_text())
    assert (half["images"], half["steps"]) == (16, 16) and half["accuracy"] > 0.9
    teacher = tmp_path / "teacher" / "hard_patches_wide" / "fraction-1" / "seed-0"
    results, log = run_on_accelerator(tmp_path, tmp_path / "data", tmp_path / "student", "--teacher", teacher)
    assert results["teacher"] == str(teacher)
    assert float(log[-1].split(",")[1]) == pytest.approx(math.log(2), abs=0.1)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_on_accelerator(tmp_path, tmp_path / "data", tmp_path / "teacher", "--teacher", teacher)
    assert re.search("Expected a result of a run with .*'teacher': .*has .*'teacher': None}. Pass another", failed.value.stderr)
