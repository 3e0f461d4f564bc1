"""The analysis commands, run as a user would."""

import re

import keras
import pytest

import keras_t2t
from keras_t2t import analysis
from keras_t2t.cli.analysis import _resized
from tests import test_cli
from tests.conftest import SMALL_CONFIGS, variant_model

run, photo = test_cli.run, test_cli.photo


@pytest.fixture
def flowers(tmp_path):
    """A classifier of three flowers, saved to a file. It does not normalize its images."""
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    model = keras_t2t.T2TViT(config, input_shape=(31, 46, 3), include_preprocessing=False, name="small")
    model = keras_t2t.replace_head(model, ["daisy", "rose", "tulip"])
    model.save(tmp_path / "flowers.keras")
    return model


def cells(output):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line.startswith("│")]


def pixels_of(path, size=(31, 46)):
    preprocessing = keras_t2t.Preprocessing(image_size=size)
    view = keras_t2t.data.read_view(path, preprocessing)
    return keras_t2t.normalize_images(view[None], preprocessing)


def test_attention(run, photo, flowers, tmp_path):
    status, output, error = run("attention", "flowers.keras", photo, "--output", "a/b/inside.png")
    assert status == 0, error
    images = pixels_of(photo)
    scores = flowers.predict(images, verbose=0)[0]
    label = ("daisy", "rose", "tulip")[int(scores.argmax())]
    found = re.search(rf"Top class: {label}, probability (0\.\d{{4}})\. Wrote a/b/inside\.png", output)
    assert found and float(found[1]) == pytest.approx(scores.max(), abs=1e-4)
    metrics = analysis.redundancy(flowers, images).by_block()
    assert [float(cell) for cell in cells(output)[1][1:]] == pytest.approx(
        [metrics[key][1] for key in ("cosine", "divergence", "entropy", "distance", "cka")], abs=0.06
    )
    assert (tmp_path / "a/b/inside.png").stat().st_size > 10_000


def test_cost_of_a_file_at_another_image_size(run, flowers, tmp_path):
    status, output, error = run("cost", "flowers.keras", "--size", "46x61", "--latency", "--picture", "growth.png")
    assert status == 0, error
    result = analysis.cost(flowers, (46, 61, 3))
    macs = f"{result.multiply_accumulates / 1e9:.3f} G multiply-accumulates for a 46x61 image"
    assert result.parameters < 1e6 and f"{result.parameters:,} parameters; {macs}" in output
    rows = cells(output)
    assert [row[0] for row in rows] == [*(stage.name for stage in result.stages), "total"]
    assert [row[1] for row in rows[:-1]] == [f"{stage.trainable:,}" for stage in result.stages]
    assert re.search(r"\d ms per image on this machine\nWrote growth.png", output)
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_cost_of_a_model_inside_another_one(run, flowers):
    nested = keras.Sequential([keras.Input((31, 46, 3)), flowers], name="nested")
    nested.save("nested.keras")
    status, output, error = run("cost", "nested.keras", "--size", "46x61", "--latency")
    assert status == 0, error
    macs = analysis.cost(flowers, (46, 61, 3)).multiply_accumulates
    assert f"{macs / 1e9:.3f} G multiply-accumulates for a 46x61 image" in output and "ms per image" in output


def test_latency_at_another_size_of_a_model_that_the_constructors_do_not_build(run, flowers):
    hidden = keras.layers.Dense(5)(flowers.get_layer("token_pool").output)
    keras.Model(flowers.input, keras.layers.Dense(3)(hidden)).save("deep.keras")
    error = run("cost", "deep.keras", "--size", "46x61", "--latency")[2]
    assert error.startswith(
        "Error: Cannot measure --latency at another --size: this model has layers that the constructors do not"
    )
    assert "ms per image" in run("cost", "deep.keras", "--latency")[1]


def test_cost_of_a_published_variant(run):
    status, output, error = run("cost", "t2t_vit_t_14")
    assert status == 0 and "t2t_vit_t_14 has random weights" in error
    assert variant_model("t2t_vit_t_14").count_params() == 21_541_070
    assert "21.5 M parameters; 5.828 G" in output
    assert "authors 6.1 G, OpenMMLab 4.34 G. Counted here: all matrix products 6.089 G;" in output
    assert "but without attention products 4.341 G; with only the class token in the last block 5.828 G." in output


def test_compare(run, photo, flowers, tmp_path):
    keras.models.clone_model(flowers).save("other.keras")
    status, output, error = run("compare", "flowers.keras", "other.keras", "--image", tmp_path, "--output", "two.png")
    assert status == 0, error
    (result,) = analysis.compare([flowers], pixels_of(photo))
    row = next(row for row in cells(output) if row[0].startswith("attention distance"))
    assert float(row[1]) == pytest.approx(result.summary()["distance"], abs=0.01)
    # Models are called by their files, because both have the same name.
    assert "flowers.keras" in output and "other.keras" in output and "random" not in output
    assert "Averages over blocks and images; number of images: 1" in output and "Wrote two.png" in output
    assert (tmp_path / "two.png").stat().st_size > 10_000


@pytest.mark.slow
def test_invalid_arguments_are_errors(run, photo, flowers, tmp_path):
    assert run("cost", "t2t_vit_15")[2].startswith("Error: Expected a file, a folder, or one of the variants t2t_vit_7,")
    for size in ("46x", "x", "1x2x3", "large"):
        assert run("cost", "flowers.keras", "--size", size)[2].startswith("Error: Expected --size PIXELS or HEIGHTxWIDTH")
    (tmp_path / "empty").mkdir()
    error = run("compare", "flowers.keras", "--image", "empty")[2]
    assert error == "Error: Expected a folder that contains images; received: empty\n"
    config = keras_t2t.config_of(flowers)
    keras_t2t.T2TViT(config, include_top=False).save("any.keras")
    # A model for images of any size still stores the image size of its preprocessing.
    assert run("compare", "any.keras", "--image", photo, "--output", "any.png")[0] == 0
    error = run("attention", "flowers.keras", "photo.pgn")[2]
    assert error == "Error: There is no file or folder photo.pgn. Did you mean photo.png?\n"
    assert run("attention", "any.keras", photo)[2] == "Error: Expected a classifier; this model returns features\n"
    assert run("cost", "any.keras")[2] == "Error: Expected --size, because any.keras takes images of any size\n"
    keras_t2t.T2TViT(config, input_shape=(31, 46, 2)).save("two.keras")
    for command in (("attention", "two.keras", photo), ("compare", "two.keras", "--image", photo)):
        message = "Error: Expected a model for RGB or grayscale images; this one takes images with 2 channels\n"
        assert run(*command)[2].endswith(message)
    for picture in ("inside.jpg", "inside"):
        _, _, error = run("attention", "flowers.keras", photo, "--output", picture)
        assert error == f"Error: Expected the path of a .png file; received: {picture}\n"
    _, _, error = run("compare", *7 * ["flowers.keras"], "--image", photo)
    assert error == "Error: Expected at most 6 models; received: 7\n"


def test_resized_model_has_the_same_cost(flowers):
    features = keras_t2t.T2TViT(keras_t2t.config_of(flowers), include_top=False, dtype="mixed_bfloat16")
    for model, shape, outputs in ((flowers, (46, 61, 3), (None, 3)), (features, (46, 61, 3), (None, 6, 8, 18))):
        resized = _resized(model, shape)
        assert resized.output_shape == outputs or resized is model
        assert analysis.cost(resized, shape).multiply_accumulates == analysis.cost(model, shape).multiply_accumulates
        assert resized.layers[1].compute_dtype == model.layers[1].compute_dtype
    assert _resized(flowers, (31, 46, 3)) is flowers


@pytest.mark.slow
def test_published_counts_are_for_224_pixels(run):
    keras_t2t.T2TViT7(weights=None, input_shape=(64, 64, 3)).save("small.keras")
    keras_t2t.T2TViT7(weights=None).save("large.keras")
    assert "authors" not in run("cost", "small.keras")[1]
    assert "authors 1.1 G" in run("cost", "large.keras")[1]
