"""The command line, as a user meets it."""

import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_t2t
from keras_t2t import assets, cli
from keras_t2t.registry import pretrained_weights_of
from keras_t2t.variants import VARIANTS
from tests.conftest import DATA, SMALL_CONFIGS, mostly_slow, seeded_parameters
from tests.micro import add_micro
from tests.torch_files import Ordered, legacy_file
from tests.weights.test_published_forms import build

CHECKPOINTS = DATA / "checkpoints"
MODEL = {"include_preprocessing": True, "classifier_activation": "softmax"}


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command in this process; returns its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["keras-t2t", *map(str, arguments)])
        with pytest.raises(SystemExit) as status:
            cli.main()
        return status.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (90, 130, 3), dtype="uint8")
    tf.io.write_file(str(tmp_path / "photo.png"), tf.io.encode_png(pixels))
    return tmp_path / "photo.png"


@pytest.mark.parametrize("file", ["t2t_tiny_ema_legacy.pth.tar", "t2t_tiny_mmpretrain.pth"])
@pytest.mark.parametrize("out", mostly_slow(["model.keras", "model.weights.h5"], "model.keras"))
def test_convert(run, file, out):
    status, output, error = run("convert", CHECKPOINTS / file, out, "--num-heads", 2)
    assert status == 0
    assert re.search(rf"Loaded 5\d weights from .*{file}, entry state_dict(_ema)?,.* layout ", error)
    assert re.search(rf"Wrote {out}: t2t_vit, 27\d,\d+ parameters, images of 64x64, outputs \(10,\)", output)
    expected = build(file, weights=CHECKPOINTS / file, **MODEL)
    if out == "model.keras":
        converted = keras.models.load_model(out)
    else:
        converted = build(file, **MODEL)
        converted.load_weights(out)
    x = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3))
    np.testing.assert_array_equal(converted.predict(x, verbose=0), expected.predict(x, verbose=0))


def test_convert_finds_the_variant(run, tmp_path):
    parameters = seeded_parameters(VARIANTS["t2t_vit_7"].config, (384, 384), classes=12)
    (tmp_path / "x.pth").write_bytes(legacy_file(Ordered(parameters)))
    assert "t2t_vit_7, 4.15 M parameters, images of 384x384" in run("convert", "x.pth", "x.keras")[1]
    model = keras.models.load_model("x.keras")
    assert model.input_shape == (None, 384, 384, 3)
    assert keras_t2t.config_of(model) == VARIANTS["t2t_vit_7"].config
    status, _, error = run("convert", "t2t_vit_10:x.pth", "x.keras")
    assert status == 1
    assert error == "Error: The checkpoint does not fit t2t_vit_10. These are the weights of t2t_vit_7\n"
    assert run("convert", "T2TViT7:x.pth", "a/b/x.weights.h5")[0] == 0
    error = run("convert", "t2t_vit_10:a/b/x.weights.h5", "x.keras")[2]
    assert error == "Error: The checkpoint does not fit t2t_vit_10. These are the weights of t2t_vit_7\n"


def test_convert_rejects_other_files(run, photo):
    status, output, error = run("convert", photo, "x.keras")
    assert (status, output) == (1, "")
    assert error.startswith(f"Error: Cannot read {photo}: it was not saved by torch.save. For other formats, ")
    assert run("convert", photo, "x.h5")[2] == "Error: Expected an output that ends in .keras or .weights.h5; received: x.h5\n"
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["ghost"])
    np.savez("ghost.npz", **seeded_parameters(config, (31, 31)))
    status, _, error = run("convert", "ghost.npz", "x.keras")
    assert status == 1
    assert "Error: The checkpoint fits neither a known variant nor a T2T-ViT with standard blocks and square images." in error
    assert "  missing: a name that matches" in error or "blocks.0" in error


def test_convert_says_what_it_assumed(run):
    file = CHECKPOINTS / "t2t_tiny_half_bare.pth"
    _, _, error = run("convert", file, "x.weights.h5")
    assert error.startswith(
        "Assuming t2t_vit with 1 attention heads, which cannot be inferred from the weight shapes. If this is another model, "
        f"use VARIANT:{file}, or `convert --num-heads N`.\nLoaded "
    )


def test_the_variant_of_a_model_inside_another_one(run):
    inner = keras_t2t.T2TViTTiny32(weights=None, include_top=False, pooling="token", input_shape=(32, 32, 3))
    keras.Sequential([keras.Input((32, 32, 3)), inner, keras.layers.Dense(2)]).save("nested.keras")
    status, output, error = run("train", "--recipe", "small_images", "--model", "nested.keras", "--show")
    assert status == 0 and "model: t2t_vit_tiny_32\n" in output, error


def test_convert_keeps_a_saved_model_as_it_is(run):
    model = keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["ghost"]), input_shape=(31, 46, 3))
    keras_t2t.replace_head(model, ["a", "b"]).save("one.keras")
    assert run("convert", "one.keras", "two.keras")[0] == 0
    two = keras.models.load_model("two.keras")
    assert keras_t2t.labels_of(two) == ("a", "b")
    assert keras_t2t.config_of(two) == keras_t2t.config_of(model)
    error = run("convert", "one.keras", "two.keras", "--num-heads", 2)[2]
    assert error == "Error: --num-heads applies only to checkpoints; one.keras already contains a complete model\n"
    error = run("convert", "t2t_vit_7:one.keras", "two.keras", "--num-heads", 2)[2]
    assert error == "Error: --num-heads applies only to checkpoints without a variant; received: t2t_vit_7:one.keras\n"


def test_info(run):
    status, output, _ = run("info")
    assert status == 0
    for name in VARIANTS:
        assert name in output
    assert re.search(r"t2t_vit_14 +│ +21\.5 M +│ imagenet 81\.50, imagenet_384 83\.34, cifar10 98\.30, cifar100 88\.40", output)
    assert "Accuracies are as published and were not measured again" in output
    _, output, _ = run("info", "t2t_vit_t_14")
    for source in pretrained_weights_of("t2t_vit_t_14").values():
        assert source.url in output
    assert "SHA-256, first 8 digits" in output
    assert run("info", "T2TViTt14")[1] == output
    _, output, _ = run("info", assets.folder("saved_models") / "t2t_vit_tiny_32_cifar10")
    assert "images: 32x32, bicubic, crop fraction 1, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)\n" in output
    assert "takes: pixels in [0, 255]\nreturns: probabilities\nclasses: 10: airplane, automobile, bird" in output


def table_of(output):
    return [[cell.strip() for cell in line.split("│")[1:3]] for line in output.splitlines() if line.startswith("│")]


@pytest.mark.parametrize("kwargs", [{}, {"include_preprocessing": False}, {"classifier_activation": None}])
def test_predict_with_a_model_that_carries_its_labels(run, photo, kwargs):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    model = keras_t2t.T2TViT(config, input_shape=(64, 48, 3), **{"classes": 3, **kwargs})
    activation = kwargs.get("classifier_activation", "softmax")
    model = keras_t2t.replace_head(model, ["daisy", "[red]rose", "tulip[/x]"], activation)
    model.save("flowers.keras")
    status, output, _ = run("predict", "flowers.keras", photo, "--top", 2)
    assert status == 0
    scores = model.predict(keras_t2t.load_image(photo, model), verbose=0)[0]
    scores = scores if activation else np.exp(scores) / np.exp(scores).sum()
    best = np.argsort(-scores)[:2]
    names, shown = zip(*table_of(output), strict=True)
    assert list(names) == [("daisy", "[red]rose", "tulip[/x]")[i] for i in best]
    assert all(re.fullmatch(r"0\.\d{4}", score) for score in shown)
    np.testing.assert_allclose([float(score) for score in shown], scores[best], atol=5.1e-5)  # four digits, either way


def test_predict_with_a_checkpoint_and_with_published_weights(run, photo, tmp_path):
    parameters = seeded_parameters(VARIANTS["t2t_vit_7"].config, (224, 224))
    folder = tmp_path / "home" / "models" / "keras_t2t"
    folder.mkdir(parents=True)
    (folder / "71.7_T2T_ViT_7.pth.tar").write_bytes(legacy_file({"state_dict_ema": Ordered(parameters)}))
    _, output, _ = run("predict", "t2t_vit_7:imagenet", photo)
    assert len(table_of(output)) == 5
    _, from_file, _ = run("predict", folder / "71.7_T2T_ViT_7.pth.tar", photo)  # which does not say what the classes are
    model = keras_t2t.T2TViT7()
    expected = model.predict(keras_t2t.load_image(photo, model), verbose=0)
    decoded = keras_t2t.decode_predictions(expected)[0]
    assert table_of(output) == [[name, f"{score:.4f}"] for _, name, score in decoded]
    best = np.argsort(-expected[0])[:5]
    assert table_of(from_file) == [[str(index), f"{expected[0][index]:.4f}"] for index in best]


def test_predict_refuses(run, photo, tmp_path):
    keras_t2t.T2TViT(keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"]), include_top=False, input_shape=(31, 31, 3)).save(
        "x.keras"
    )
    assert run("predict", "x.keras", photo)[2] == "Error: Expected a classifier; x.keras returns features\n"
    status, _, error = run("predict", "imagenet", photo)
    assert status == 1
    assert error.startswith("Error: Expected a file, a folder, or one of the variants t2t_vit_7, t2t_vit_10,")
    _, _, error = run("predict", "t2t_vit_24:cifar10", photo)
    assert error == (
        "Error: Expected pretrained weights of t2t_vit_24 (imagenet) or a file after the colon; "
        "received: 't2t_vit_24:cifar10'\n"
    )
    _, _, error = run("predict", "t2t_vit_19", photo)
    assert error == (
        "Error: t2t_vit_19 has random weights. "
        "Specify its weights: t2t_vit_19:imagenet, t2t_vit_19:cifar10, t2t_vit_19:cifar100\n"
    )
    assert run("predict", "vit_small_16", photo)[2].endswith("Specify its weights: vit_small_16:FILE\n")
    (tmp_path / "photos").mkdir()
    assert run("predict", "photos", photo)[2] == (
        "Error: Expected the folder of a training run or a SavedModel; there is no model.keras in photos\n"
    )
    assert run("predict", "t2t_vit_tiny_32:cifar10", photo, "--crop-fraction", 0)[0] == 2
    assert run("predict", "t2t_vit_tiny_32:cifar10", "none.png")[2] == "Error: There is no file or folder none.png\n"
    assert run("predict", "t2t_vit_tiny_32:cifar10")[0] == 2


def test_the_module_and_the_script_run():
    for command in ([sys.executable, "-m", "keras_t2t"], [f"{sys.prefix}/bin/keras-t2t"]):
        result = subprocess.run([*command, "--help"], capture_output=True, text=True)
        assert result.returncode == 0
        for name in ("convert", "info", "predict"):
            assert name in result.stdout


def write_colors(folder, count=6, size=(32, 32)):
    for name, color in {"blue": (10, 20, 200), "red": (200, 10, 20)}.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = np.full((*size, 3), color, "uint8") + np.uint8(number)
            tf.io.write_file(str(folder / name / f"{number}.png"), tf.io.encode_png(image))


@pytest.mark.slow
def test_data_check_names_the_files_that_cannot_be_read(run, tmp_path):
    write_colors(tmp_path / "colors")
    status, output, _ = run("data", "check", "colors")
    assert status == 0
    assert output == ("train: 10 images in 2 classes, 0 cannot be read\nval: 2 images in 2 classes, 0 cannot be read\n")
    (tmp_path / "colors" / "red" / "3.png").write_bytes(b"no image")
    status, output, _ = run("data", "check", "colors")
    assert status == 1
    assert output.endswith("\ncolors/red/3.png: not an image (starts with b'no image')\n")
    (tmp_path / "colors" / "red" / "4.psd").touch()
    shutil.copy(tmp_path / "colors" / "red" / "0.png", tmp_path / "colors" / "0.png")
    _, output, _ = run("data", "check", "colors")
    assert (
        "\nIgnoring 1 image outside of the classes, such as colors/0.png\n"
        "Ignoring 1 file, such as colors/red/4.psd\nExpected one of the extensions "
        ".jpg, .jpeg, .jfif, .png, .bmp, .gif, .webp, .tif, .tiff, .heic, .heif, .avif\n" in output
    )
    assert run("data", "check", "none")[2] == "Error: There is no file or folder none\n"


@pytest.mark.slow
def test_train_then_evaluate(run, tmp_path, monkeypatch):
    add_micro(monkeypatch)
    write_colors(tmp_path / "colors")
    arguments = ("--data", "colors", "--model", "micro", "--set", "epochs=2", "--set", "batch_size=5")
    status, output, _ = run("train", *arguments, "--output", "run", "--show")
    assert status == 0
    assert "model: micro" in output and "epochs: 2" in output
    status, output, error = run("train", *arguments, "--output", "run", "--set", "learning_rate=1e-2", "--set", "seed=3")
    assert status == 0, error
    assert "\nWrote run:\n  model.keras " in output
    card = (tmp_path / "run" / "README.md").read_text()
    assert "Trained with `keras-t2t train --data colors" in card and "# micro on colors\n" in card
    status, output, _ = run("evaluate", "run", "--data", "colors", "--split", "train", "--picture", "confusion.png")
    assert status == 0
    model = keras.models.load_model("run/model.keras")
    assert "Using the training images of run\n" in output
    sources = keras_t2t.data.from_folder("colors")  # the seed of the recipe does not matter
    images = keras_t2t.data.load_images(sources["train"].images, model)
    accuracy = (model.predict(images, verbose=0).argmax(1) == sources["train"].labels).mean()
    assert f"top-1 {accuracy:.4f}; 10 images in train\n" in output
    assert (tmp_path / "confusion.png").stat().st_size > 5000
    model = keras.models.load_model("run/best.keras")
    predicted = model.predict(images, verbose=0).argmax(1)
    for name in ("run/best.keras", "micro:run/best.keras"):
        status, output, error = run("evaluate", name, "--data", "colors", "--split", "train")
        assert "Using the training images of run\n" in output
        assert f"top-1 {(predicted == sources['train'].labels).mean():.4f}; 10 images in train\n" in output, error
    assert run("evaluate", "run/model.keras", "--data", "colors", "--split", "test")[2] == (
        "Error: Expected --split to be one of train, val; received: 'test'\n"
    )
    shutil.copy(sources["train"].images[0], tmp_path / "colors" / "blue" / "new.png")
    output = run("evaluate", "run", "--data", "colors")[1]
    assert "Note: run held out different images, so val may include training images\n" in output
    data = (tmp_path / "run" / "data.yaml").read_text()
    (tmp_path / "run" / "data.yaml").write_text(re.sub("val_checksum: .*", "val_checksum: null", data))
    output = run("evaluate", "run", "--data", "colors")[1]
    assert "Note: run does not say which images it held out, so val may include training images\n" in output
    (tmp_path / "colors" / "blue").rename(tmp_path / "colors" / "azure")
    _, output, _ = run("evaluate", "run/model.keras", "--data", "colors")
    assert "Note: the model has the classes blue, red, and the data has azure, red. Matching them by index\n" in output
    (tmp_path / "colors" / "azure" / "1.png").write_bytes(b"no image")
    status, _, error = run("evaluate", "run/model.keras", "--data", "colors", "--split", "train")
    assert status == 1 and error == (
        "Error: Cannot read colors/azure/1.png: not an image (starts with b'no image'). Remove it\n"
    )
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("skip_bad_files: false", "skip_bad_files: true"))
    status, output, _ = run("evaluate", "run/model.keras", "--data", "colors", "--split", "train")
    assert status == 0 and "train: skipping 1 file that cannot be read: colors/azure/1.png\n" in output


def test_recipes_can_be_seen_without_data(run):
    status, output, _ = run("train", "--recipe", "imagenet_384", "--model", "t2t_vit_19", "--show")
    assert status == 0 and "model: t2t_vit_19\nimage_size: 384\n" in output
    assert (
        run("train", "--show")[2] == "Error: Expected --data and --output. With --show, the recipe finetune needs --data only\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "epochs"), "Expected --set NAME=VALUE; received: 'epochs'"),
        (("--set", "epoch=2"), r"Unknown settings \['epoch'\]; expected some of: "),
        (("--recipe", "none"), "Expected one of the recipes imagenet_lite,"),
        (("--data", "tfds:no_such_dataset"), "Cannot prepare the dataset 'no_such_dataset'"),
        (("--model", "runs/nope"), "There is no file or folder runs/nope"),
        (("--model", "t2t_vit_15"), "Expected a file, a folder, or one of the variants t2t_vit_7,"),
    ],
)
def test_train_refuses(run, tmp_path, arguments, message):
    write_colors(tmp_path / "colors")
    status, _, error = run("train", "--data", "colors", "--output", "run", *arguments)
    assert status == 1
    assert re.search(f"Error: .*{message}", error)
    assert not (tmp_path / "run").exists()


def test_a_keras_file_of_a_variant_keeps_its_preprocessing_and_classes(run, photo, monkeypatch):
    add_micro(monkeypatch)
    preprocessing = keras_t2t.Preprocessing(image_size=(32, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    model = keras_t2t.T2TViT("micro", classes=2, preprocessing=preprocessing)
    model = keras_t2t.replace_head(model, ["ant", "bee"])
    model.save("insects.keras")
    assert run("predict", "micro:insects.keras", photo)[1] == run("predict", "insects.keras", photo)[1]
    status, _, error = run("predict", "t2t_vit_7:insects.keras", photo)
    assert status == 1
    assert error == "Error: Expected a model of the variant t2t_vit_7 after the colon; insects.keras is a model of micro\n"


def test_a_study_holds_out_what_its_recipe_says(run, tmp_path, monkeypatch):
    write_colors(tmp_path / "colors")
    (tmp_path / "half.yaml").write_text("validation_fraction: 0.5\n")
    (tmp_path / "study.yaml").write_text("{models: [hard_patches], recipe: half.yaml}")
    sizes = []
    monkeypatch.setattr("keras_t2t.training.run_study", lambda study, sources, *_: sizes.append(len(sources["val"])))
    run("study", "study.yaml", "--data", "colors", "--output", "out")
    assert sizes == [6]  # three of the six images of each class


@keras.saving.register_keras_serializable("mine")
class Mine(keras.layers.Layer):
    def call(self, x):
        return x


def test_a_file_with_a_layer_that_is_not_registered(run, photo, monkeypatch):
    model = keras_t2t.T2TViTTiny32(weights=None)
    keras.Model(model.input, Mine()(model.output)).save("mine.keras")
    monkeypatch.delitem(keras.saving.get_custom_objects(), "mine>Mine")
    monkeypatch.delattr(sys.modules[__name__], "Mine")
    error = run("predict", "mine.keras", photo)[2]
    expected = (
        "Error: Cannot open mine.keras: Could not locate class 'Mine'. Models with layers of your own can only be opened in "
    )
    assert error == expected + "Python\n"
