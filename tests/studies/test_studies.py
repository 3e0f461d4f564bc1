"""What a study consists of, its reference networks, and the arithmetic of its tables."""

import dataclasses
import functools
import json
import math
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml

import keras_t2t
from keras_t2t.cli import main
from keras_t2t.models import replace_head
from keras_t2t.recipes import load_recipe
from keras_t2t.studies import Cell, Study, confidence_interval, load_study, summarize, write_tables
from keras_t2t.studies.references import REFERENCES, convolution_macs, reference_backbone
from keras_t2t.training.building import build_model
from keras_t2t.variants import STUDY_CONFIGS
from tests.conftest import initialize_with_zeros
from tests.micro import add_micro
from tests.test_cli import write_colors

DOCS = pathlib.Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def micro_variant(monkeypatch):
    add_micro(monkeypatch)


def test_every_model_has_the_same_number_of_parameters(monkeypatch):
    """As far as the number of channels allows, with ten classes. Each T2T-ViT has 64 tokens besides the class token."""
    initialize_with_zeros(monkeypatch)
    counts = {}
    for name, config in STUDY_CONFIGS.items():
        model = keras_t2t.T2TViT(config, weights=None, classes=10, input_shape=(32, 32, 3))
        counts[name] = model.count_params()
        assert keras_t2t.configs.token_grid(config.soft_splits, 32, 32) == (8, 8)
    for name in REFERENCES:
        backbone = reference_backbone(name, keras_t2t.Preprocessing(image_size=(32, 32)))
        counts[name] = replace_head(backbone, 10).count_params()
    expected = counts["t2t_performer"]
    assert expected == 896_512
    for name, count in counts.items():
        assert abs(count / expected - 1) < (0.05 if name == "resnet_56" else 0.02), name


def test_models_take_images_of_32_pixels_by_default(monkeypatch):
    initialize_with_zeros(monkeypatch)
    for name, config in STUDY_CONFIGS.items():
        for model in (
            keras_t2t.T2TViT(name, classes=10),
            keras_t2t.T2TViT(dataclasses.replace(config, drop_rate=0.1), classes=10),
        ):
            assert model.input_shape == (None, 32, 32, 3)
            assert keras_t2t.preprocessing_of(model) == keras_t2t.Preprocessing(image_size=(32, 32), crop_fraction=1.0)


def test_references_start_with_random_weights():
    with pytest.raises(ValueError, match=r"mobilenet_v2 starts with random weights. .* received: weights='imagenet'"):
        build_model(load_recipe("small_images").replace(model="mobilenet_v2"), ["a", "b"], weights="imagenet")


def test_references_have_the_published_structure():
    """He et al. give 0.85 million parameters and 125 million multiply-accumulates for ResNet-56 with shortcuts that have none.

    Ours has two 1x1 convolutions in the shortcuts instead. MobileNetV2 keeps a map of 4x4 where the original has 1x1.
    """
    preprocessing = keras_t2t.Preprocessing(image_size=(32, 32))
    resnet = replace_head(reference_backbone("resnet_56", preprocessing), 10)
    shortcuts = 16 * 32 * 16**2 + 32 * 64 * 8**2
    assert (
        convolution_macs(resnet) - shortcuts
        == 3 * 16 * 9 * 32**2
        + (18 * 16 * 16 * 32**2 + 16 * 32 * 16**2 + 17 * 32 * 32 * 16**2 + 32 * 64 * 8**2 + 17 * 64 * 64 * 8**2) * 9
        + 640
    )
    mobilenet = reference_backbone("mobilenet_v2", preprocessing)
    pooled = [layer for layer in keras_t2t.models.graph.layers_of(mobilenet) if layer.name == "out_relu"]
    assert pooled[0].output.shape == (None, 4, 4, 1280)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_batch_normalization_of_references_adapts_within_a_short_run(name):
    model = reference_backbone(name, keras_t2t.Preprocessing(image_size=(32, 32)))
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
    train = tf.function(functools.partial(model, training=True))
    for _ in range(250):
        trained = np.asarray(train(images))
    np.testing.assert_allclose(model(images, training=False), trained, rtol=0.02, atol=0.02 * np.abs(trained).max())


def test_cells_and_shards():
    study = Study(models=["hard_patches", "resnet_56"], seeds=[3, 5], fractions=[0.5])
    cells = study.cells()
    assert cells == [Cell(model, 0.5, seed) for seed in (3, 5) for model in ("hard_patches", "resnet_56")]
    assert sorted(map(str, (cell.folder for cell in cells)))[0] == "hard_patches/fraction-0.5/seed-3"
    assert study.cells((0, 3)) + study.cells((1, 3)) + study.cells((2, 3)) == [cells[i] for i in (0, 3, 1, 2)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": []}, "Expected one or more distinct models; received: models=[]"),
        ({"models": ["hard_patches"], "seeds": [1, 1]}, "Expected one or more distinct seeds; received: seeds=[1, 1]"),
        ({"models": ["hard_patch"]}, "received: 'hard_patch'. Did you mean hard_patches?"),
        ({"models": ["resnet_56"], "fractions": [0.0]}, "Expected fractions in (0, 1]; received: fractions=[0.0]"),
        ({"models": ["resnet_56"], "settings": {"seed": 1}}, "outside of the settings; received the settings ['seed']"),
        ({"models": ["resnet_56"], "seed": [1]}, "Unknown keys ['seed']"),
        (
            {"models": ["resnet_56"], "recipe": "finetune"},
            "Expected a recipe for training from scratch; received: recipe='finetune'",
        ),
        ({"models": ["resnet_56"], "settings": ["epochs"]}, "Expected a mapping of setting names to values; received: "),
        (
            {"models": ["resnet_56"], "settings": {1: 2}},
            "Expected a mapping of setting names to values; received: settings={1: 2}",
        ),
        (
            {"models": ["resnet_56"], "recipe": {"epochs": 3}},
            "Expected the name of a recipe, or the path of a YAML file; received",
        ),
        ({"models": ["resnet_56"], 1: 2, "foo": 3}, "Unknown keys [1, 'foo']"),
        ({"models": None}, "Expected a YAML mapping with the key models"),
        ({"models": "resnet_56"}, "Expected a list of models; received: models='resnet_56'"),
        ({"models": ["resnet_56"], "seeds": 3}, "Expected a list of seeds; received: seeds=3"),
        ({"models": ["resnet_56"], "fractions": ["1"]}, "Expected a list of fractions; received: fractions=['1']"),
        ({"seeds": [1]}, "Expected a YAML mapping with the key models"),
    ],
)
def test_invalid_descriptions(values, message, tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=re.escape(message)):
        load_study(tmp_path / "study.yaml")


def test_yaml_files(tmp_path):
    (tmp_path / "study.yaml").write_text("models: [resnet_56]\nsettings:\n")  # without settings
    assert load_study(tmp_path / "study.yaml") == Study(models=["resnet_56"])
    for load in (load_study, load_recipe):
        (tmp_path / "study.yaml").write_text("models: [resnet_56")
        with pytest.raises(ValueError, match=r"Cannot read .*study\.yaml as YAML: while parsing a flow sequence"):
            load(tmp_path / "study.yaml")


def test_the_studies_in_the_examples_share_a_recipe():
    folder = DOCS.parent / "examples" / "study"
    models, fractions = load_study(folder / "cifar10.yaml"), load_study(folder / "cifar10_fractions.yaml")
    assert set(models.models) == {*STUDY_CONFIGS, *REFERENCES} and set(fractions.models) < set(models.models)
    assert (models.recipe, models.settings, models.seeds) == (fractions.recipe, fractions.settings, fractions.seeds)


def test_confidence_intervals_are_those_of_students_distribution():
    """With two values, the distribution is Cauchy's: the quantile is tan(0.475 pi). With three, it also has a closed form."""
    mean, half_width = confidence_interval([0.5, 0.8])
    assert mean == pytest.approx(0.65) and half_width == pytest.approx(math.tan(0.475 * math.pi) * 0.15)
    mean, half_width = confidence_interval([1.0, 2.0, 6.0])
    quantile = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    assert mean == pytest.approx(3) and half_width == pytest.approx(quantile * math.sqrt(7) / math.sqrt(3))
    assert math.isnan(confidence_interval([0.5])[1])


def result(model, fraction, seed, accuracy, **others):
    return {"model": model, "fraction": fraction, "seed": seed, "accuracy": accuracy, **others}


def test_tables(tmp_path):
    results = [
        result("a", 1.0, 1, 0.70, ema_accuracy=0.72),
        result("a", 1.0, 0, 0.60, ema_accuracy=0.74),
        result("b", 1.0, 0, 0.80),
        result("a", 0.125, 0, 0.31, ema_accuracy=0.3),
        result("c", 0.5, 0, 0.49),
    ]
    for each in results:
        folder = tmp_path / Cell(each["model"], each["fraction"], each["seed"]).folder
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(each))
    costs = {
        "a": {
            "parameters": 1_230_000,
            "multiply_accumulates": 45_600_000,
            "latency": 0.0031,
            "training_images_per_second": 987.6,
        }
    }
    (tmp_path / "costs.json").write_text(json.dumps(costs))
    assert [(s.model, s.fraction, s.seeds) for s in summarize(results)] == [
        ("b", 1.0, (0,)),
        ("a", 1.0, (0, 1)),
        ("c", 0.5, (0,)),
        ("a", 0.125, (0,)),
    ]
    text = write_tables(tmp_path)
    assert text == (tmp_path / "results.md").read_text()
    assert text.splitlines() == [
        "| model | accuracy | averaged weights | seeds | parameters | MACs | latency | training images/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| b | 80.0 | - | 1 | - | - | - | - |",
        "| a | 65.0 ± 63.5 | 73.0 ± 12.7 | 2 | 1.23 M | 46 M | 3.1 ms | 988 |",
        "",
        "| model | 12.5% of the images | 50% of the images | 100% of the images |",
        "| --- | --- | --- | --- |",
        "| a | 31.0 | - | 65.0 ± 63.5 |",
        "| c | - | 49.0 | - |",
    ]
    single, row = json.loads((tmp_path / "results.json").read_text())[:2]
    assert single["model"] == "b" and single["interval"] is None  # JSON has no NaN
    assert row["accuracy"] == pytest.approx(0.65) and row["parameters"] == 1_230_000 and row["latency"] == 0.0031
    for picture in ("accuracy.png", "fractions.png"):
        assert keras.utils.img_to_array(keras.utils.load_img(tmp_path / picture)).std() > 1
    with pytest.raises(ValueError, match="Expected a folder with the results of a study; found none in"):
        write_tables(tmp_path / "a")


def test_the_page_shows_what_the_committed_logs_say(tmp_path):
    """The tables and pictures of docs/study.md are those that one command makes from the logs in docs/study."""
    page = DOCS / "study.md"
    shutil.copytree(DOCS / "study", tmp_path / "study")
    for name in ("results.md", "results.json", "accuracy.png", "fractions.png"):
        (tmp_path / "study" / name).unlink()
    text = write_tables(tmp_path / "study")
    assert text == (DOCS / "study" / "results.md").read_text()
    assert (tmp_path / "study" / "results.json").read_text() == (DOCS / "study" / "results.json").read_text()
    tables = [*text.split("\n\n"), (DOCS / "study" / "redundancy.md").read_text()]
    assert len(tables) == 3 and all(f"\n\n{table.strip()}\n\n" in page.read_text() for table in tables)
    for name in ("accuracy.png", "fractions.png"):
        drawn, committed = (
            keras.utils.img_to_array(keras.utils.load_img(folder / name)) for folder in (tmp_path / "study", DOCS / "study")
        )
        assert drawn.shape == committed.shape and np.abs(drawn - committed).mean() < 1


def test_command_line_makes_tables_and_checks_shards(tmp_path, capsys, monkeypatch):
    (tmp_path / "study.yaml").write_text("models: [micro]\n")
    folder = tmp_path / Cell("micro", 1.0, 0).folder
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result("micro", 1.0, 0, 0.125)))
    arguments = ["keras-t2t", "study", str(tmp_path / "study.yaml"), "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 0
    assert "| micro | 12.5 | - | 1 |" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*arguments, "--data", str(tmp_path / "micro"), "--shard", "3/2"])
    with pytest.raises(SystemExit):
        main()
    assert "Expected --shard I/N with 1 <= I <= N; received: --shard 3/2" in capsys.readouterr().err


def test_a_shard_may_have_no_runs(tmp_path, capsys, monkeypatch):
    (tmp_path / "study.yaml").write_text("models: [micro]\nseeds: [0]\n")
    write_colors(tmp_path / "colors")
    options = ("--data", str(tmp_path / "colors"), "--output", str(tmp_path / "runs"), "--shard", "2/2")
    monkeypatch.setattr("sys.argv", ["keras-t2t", "study", str(tmp_path / "study.yaml"), *options])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 0
    assert "There are no results yet. This shard has no runs, or" in capsys.readouterr().out
