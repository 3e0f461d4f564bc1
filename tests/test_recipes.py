"""Recipes can be printed, saved, and changed by name. Unknown names and invalid values raise."""

import pytest

from keras_t2t.data import Augmentation
from keras_t2t.recipes.named import finetune
from keras_t2t.training import RECIPES, Recipe, load_recipe
from keras_t2t.variants import VARIANTS


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_round_trip(name, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPES[name].to_yaml())
    assert load_recipe(tmp_path / "recipe.yaml") == RECIPES[name] == load_recipe(name)
    assert RECIPES[name].model in VARIANTS


def test_published_recipes():
    """Settings published with the paper."""
    lite, middle, large = RECIPES["imagenet_lite"], RECIPES["imagenet"], RECIPES["imagenet_large"]
    assert (lite.learning_rate, middle.learning_rate, large.learning_rate) == (1e-3, 5e-4, 5e-4)
    assert (lite.weight_decay, middle.weight_decay, large.weight_decay) == (0.03, 0.05, 0.065)
    for recipe in (lite, middle, large):
        assert (recipe.epochs, recipe.warmup_epochs, recipe.cooldown_epochs, recipe.batch_size) == (300, 10, 10, 512)
        assert (recipe.warmup_learning_rate, recipe.final_learning_rate, recipe.ema_momentum) == (1e-6, 1e-5, 0.99996)
        assert (recipe.mixup, recipe.cutmix, recipe.mixup_switch_prob, recipe.label_smoothing) == (0.8, 1.0, 0.5, 0.1)
        assert (recipe.rand_augment_num_ops, recipe.rand_augment_magnitude, recipe.rand_augment_magnitude_std) == (2, 9, 0.5)
        assert (recipe.random_erase_prob, recipe.drop_path_rate, recipe.eval_crop_fraction) == (0.25, 0.1, 0.9)
    transfer = RECIPES["transfer"]
    assert (transfer.optimizer, transfer.momentum, transfer.learning_rate, transfer.weight_decay) == ("sgd", 0.9, 0.05, 5e-4)
    assert (transfer.epochs, transfer.final_learning_rate, transfer.backbone_lr_multiplier) == (60, 2e-4, 0.01)
    assert transfer.shared_final_lr and transfer.freeze_embeddings and transfer.decay_all_weights
    assert (transfer.mean, transfer.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert (transfer.eval_crop_fraction, transfer.eval_interpolation, transfer.crop_padding) == (1.0, "bilinear", 28)


def test_settings_are_converted_from_strings():
    recipe = Recipe().replace(epochs="12", learning_rate="3e-4", cache="true", crop_scale="0.2,0.9", model="t2t_vit_7")
    assert (recipe.epochs, recipe.learning_rate, recipe.cache, recipe.crop_scale) == (12, 3e-4, True, (0.2, 0.9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, r"Unknown settings \['epoch'\]; expected some of: crop_mode, .*, epochs,"),
        ({"epochs": "many"}, "Expected epochs to be of type int; received: epochs='many'"),
        ({"epochs": 1.5}, "Expected epochs to be of type int; received: epochs=1.5"),
        ({"epochs": 0}, "Expected epochs to be positive; received: epochs=0"),
        ({"cache": "perhaps"}, "Expected cache to be of type bool"),
        (
            {"mean": "0.5,0.5"},
            r"Expected mean to be three numbers in \[0, 1\], for pixels in \[0, 1\]; received: mean=\(0.5, 0.5\)",
        ),
        ({"std": (58.4, 57.1, 57.4)}, r"Expected std to be three numbers in \(0, 1\], .*; received: std=\(58.4, 57.1, 57.4\)"),
        ({"std": "a"}, "Expected std to be numbers; received: std='a'"),
        ({"crop_scale": "0.5"}, "Expected crop_scale to be two numbers; received: crop_scale='0.5'"),
        ({"optimizer": "adam"}, r"Expected optimizer to be one of \('adamw', 'sgd'\); received: optimizer='adam'"),
        ({"model": "t2t_vit_15"}, "expected one of t2t_vit_7,"),
        ({"image_size": 2}, r"images or token grids large enough for one token .* received: height=2, width=2"),
        ({"epochs": "inf"}, "Expected epochs to be of type int; received: epochs='inf'"),
        ({"epochs": 5}, "Expected warmup_epochs <= epochs; received: warmup_epochs=10, epochs=5"),
        (
            {"warmup_epochs": -1},
            "Expected warmup_epochs to be a finite non-negative number; received: warmup_epochs=-1",
        ),
        ({"learning_rate": "nan"}, "Expected learning_rate to be a finite non-negative number"),
        ({"rematerialize": True, "drop_rate": 0.1}, "Expected drop_rate=0 with rematerialize=True; received: drop_rate=0.1"),
        ({"mixup": -0.5}, "Expected mixup to be a finite non-negative number; received: mixup=-0.5"),
        ({"eval_crop_fraction": 0}, "Expected eval_crop_fraction to be positive; received: eval_crop_fraction=0.0"),
        ({"eval_crop_fraction": 1.5}, r"Expected eval_crop_fraction to be in \[0, 1\]"),
        ({"crop_scale": "1,0.1"}, r"Expected crop_scale to be two numbers \(low, high\) in \(0, 1\]; received"),
        ({"interpolation": "bicubik"}, r"Expected interpolation to be one of \('area', 'bicubic', 'bilinear', .*'bicubik'"),
        ({"label_smoothing": 2}, r"Expected label_smoothing to be in \[0, 1\]; received: label_smoothing=2.0"),
    ],
)
def test_invalid_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe().replace(**changes)


def test_unknown_names_and_invalid_files(tmp_path):
    with pytest.raises(
        ValueError, match=r"one of the recipes imagenet_lite, .*, finetune, or a YAML file; received: 'imagenet21k'"
    ):
        load_recipe("imagenet21k")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"Cannot read .*binary\.yaml as YAML: 'utf-8' codec"):
        load_recipe(tmp_path / "binary.yaml")
    (tmp_path / "x.yaml").write_text("- 1")
    with pytest.raises(ValueError, match=r"Expected a YAML mapping of setting names to values in .*x\.yaml"):
        load_recipe(tmp_path / "x.yaml")


def test_another_model_changes_the_image_size():
    recipe = load_recipe("imagenet", model="t2t_vit_tiny_32")
    assert (recipe.image_size, recipe.eval_crop_fraction) == (32, 1.0)
    small, large = load_recipe("transfer", model="t2t_vit_tiny_32"), load_recipe("small_images", model="t2t_vit_7")
    assert (small.image_size, small.crop_padding, large.image_size, large.crop_padding) == (32, 4, 224, 28)


def test_another_model_keeps_the_image_size_of_a_file_that_names_no_model(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("image_size: 64\nepochs: 20\n")
    recipe = load_recipe(path, model="t2t_vit_tiny_32")
    assert (recipe.model, recipe.image_size, recipe.epochs, recipe.eval_crop_fraction) == ("t2t_vit_tiny_32", 64, 20, 1.0)
    assert load_recipe(path).model == "t2t_vit_14"
    path.write_text("model: t2t_vit_7\nimage_size: 224\n")
    assert load_recipe(path, model="t2t_vit_tiny_32").image_size == 32


def test_another_model_of_the_same_image_size_keeps_the_recipe():
    larger = load_recipe("imagenet_384", model="t2t_vit_19")
    assert (larger.model, larger.image_size, larger.eval_crop_fraction) == ("t2t_vit_19", 384, 1.0)
    with pytest.raises(ValueError, match="Expected the number of images for the recipe finetune"):
        load_recipe("finetune")


def test_fine_tuning_depends_on_the_number_of_images():
    few, some, many = (finetune(images) for images in (100, 3000, 100_000))
    assert (few.epochs, some.epochs, many.epochs) == (60, 16, 5)
    assert (few.batch_size, some.batch_size, many.batch_size) == (16, 32, 64)
    assert [finetune(images).batch_size for images in (1, 11, 16, 17)] == [1, 11, 16, 16]  # never more than there are
    assert load_recipe("finetune", 3000, "t2t_vit_7").model == "t2t_vit_7"


def test_augmentation_is_checked_like_a_recipe():
    assert Augmentation(crop_scale=["0.5", 1]).crop_scale == (0.5, 1.0)
    for changes, message in [
        (
            {"crop_mode": "resize"},
            r"crop_mode to be one of \('resized', 'padded', 'none'\); received: crop_mode='resize'",
        ),
        ({"label_smoothing": 10.0}, r"Expected label_smoothing to be in \[0, 1\]"),
        ({"crop_scale": (2, 4)}, r"Expected crop_scale to be two numbers \(low, high\) in \(0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            Augmentation(**changes)
    with pytest.raises(ValueError, match=r"Expected drop_rate to be in \[0, 1\); received: drop_rate=1.0"):
        Recipe(drop_rate=1.0)


def test_mean_and_std_belong_together():
    assert Recipe(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).mean == (0, 0, 0)
    with pytest.raises(ValueError, match=r"Expected both mean and std, or neither; received: mean=\(0.5, 0.5, 0.5\), std=\(\)"):
        Recipe(mean=(0.5, 0.5, 0.5))


def test_a_file_for_a_reference_network_with_another_model(tmp_path):
    (tmp_path / "recipe.yaml").write_text("model: resnet_56\nimage_size: 32\neval_crop_fraction: 1.0\n")
    assert load_recipe(tmp_path / "recipe.yaml", model="t2t_vit_tiny_32").image_size == 32
    changed = load_recipe(tmp_path / "recipe.yaml", model="t2t_vit_7")
    assert (changed.model, changed.image_size, changed.eval_crop_fraction) == ("t2t_vit_7", 224, 0.9)


def test_the_constructor_converts_and_checks_types():
    assert Recipe(learning_rate="1e-3", flip="false", crop_scale=[0.5, 1]) == Recipe(
        learning_rate=1e-3, flip=False, crop_scale=(0.5, 1.0)
    )
    for changes, kind in [
        ({"flip": "no"}, "of type bool"),
        ({"batch_size": 16.5}, "of type int"),
        ({"weight_decay": None}, "float"),
    ]:
        with pytest.raises(ValueError, match=f"Expected {next(iter(changes))} to be .*{kind}"):
            Recipe(**changes)
    for changes in ({"crop_scale": (0.1, 0.5, 0.9)}, {"crop_scale": 0.5}, {"mean": 0.5}, {"image_size": (224, 224)}):
        with pytest.raises(ValueError, match=f"Expected {next(iter(changes))} to be"):
            Recipe(**changes)
