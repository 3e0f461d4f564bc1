"""The recipes that come with the package, and how to find or load one.

Sources: section 4 of the paper and the training commands of the reference implementation. `imagenet_384`, `small_images`, and
`finetune` are our own.
"""

import os
import pathlib
from typing import Any

from keras_t2t.errors import did_you_mean, did_you_mean_file
from keras_t2t.extras import read_yaml
from keras_t2t.preprocessing import CIFAR_MEAN, CIFAR_STD
from keras_t2t.recipes.recipe import Recipe
from keras_t2t.variants import REFERENCE_NAMES, find_variant

_SMALL_IMAGES: dict[str, Any] = {
    "crop_mode": "padded",
    "rand_augment_num_ops": 0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "random_erase_prob": 0.0,
    "eval_crop_fraction": 1.0,
}

RECIPES: dict[str, Recipe] = {
    # Training from scratch on ImageNet, for 310 epochs. The authors report 71.7%, 75.2%, and 76.5% top-1 for t2t_vit_7,
    # t2t_vit_10, and t2t_vit_12.
    "imagenet_lite": Recipe(model="t2t_vit_7", learning_rate=1e-3, weight_decay=0.03),
    # The authors report 81.5% top-1.
    "imagenet": Recipe(),
    # The authors report 81.9% and 82.3% top-1 for t2t_vit_19 and t2t_vit_24.
    "imagenet_large": Recipe(model="t2t_vit_19", weight_decay=0.065),
    # Fine-tuning from 224x224 to 384x384. The authors report 83.3% top-1 at that size. The schedule is our own.
    "imagenet_384": Recipe(
        image_size=384, eval_crop_fraction=1.0, epochs=30, warmup_epochs=0, cooldown_epochs=0, learning_rate=1e-5
    ),
    # Transfer from ImageNet to small images resized to 224x224. The authors report 98.3% on CIFAR-10 and 88.4% on CIFAR-100.
    "transfer": Recipe(
        epochs=60,
        warmup_epochs=0,
        cooldown_epochs=0,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.05,
        final_learning_rate=2e-4,
        weight_decay=5e-4,
        backbone_lr_multiplier=0.01,
        drop_path_rate=0.0,
        ema_momentum=0.0,
        label_smoothing=0.0,
        crop_padding=28,
        freeze_embeddings=True,
        shared_final_lr=True,
        decay_all_weights=True,
        eval_interpolation="bilinear",
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
        **_SMALL_IMAGES,
    ),
    # Training from scratch on 32x32 images, such as CIFAR-10.
    "small_images": Recipe(
        model="t2t_vit_tiny_32",
        image_size=32,
        epochs=60,
        warmup_epochs=3,
        cooldown_epochs=0,
        batch_size=128,
        learning_rate=1.5e-3,
        weight_decay=0.05,
        drop_path_rate=0.0,
        ema_momentum=0.999,
        evaluate_every=5,
        cache=True,
        **_SMALL_IMAGES,
    ),
}


def finetune(images: int, model: str = "t2t_vit_14") -> Recipe:
    """Returns a recipe for fine-tuning. Fewer images mean more epochs and smaller batches, never larger than the dataset.

    Args:
        images: Number of training images.
        model: Name of the variant.
    """
    batch_size = min(images, 16) if images < 500 else 32 if images < 5000 else 64
    return Recipe(
        model=model,
        image_size=find_variant(model).image_size,
        epochs=min(max(round(1500 * batch_size / images), 5), 60),
        warmup_epochs=1,
        cooldown_epochs=0,
        batch_size=batch_size,
        learning_rate=1e-3,
        final_learning_rate=1e-6,
        backbone_lr_multiplier=0.2,
        layer_decay=0.8,
        global_clipnorm=1.0,
        drop_path_rate=0.05,
        ema_momentum=0.99,
        crop_scale=(0.4, 1.0),
        mixup=0.0,
        cutmix=0.0,
        rand_augment_magnitude=5.0,
        random_erase_prob=0.1,
        eval_crop_fraction=find_variant(model).crop_fraction,
    )


def load_recipe(name: str | os.PathLike, images: int = 0, model: str | None = None) -> Recipe:
    """Returns a recipe by name or from a YAML file.

    Args:
        name: A key of `RECIPES`, `"finetune"`, or the path of a YAML file.
        images: Number of training images. Only `"finetune"` needs it.
        model: Name of the variant to train instead of the one in the recipe. If the two variants have different image sizes,
            the image size and the crops of the recipe are adapted. Those in a YAML file that has no model are kept.

    Raises:
        ValueError: If there is no such recipe or file, or if it has invalid settings.

    Example:

    >>> keras_t2t.training.load_recipe("imagenet", model="t2t_vit_10").learning_rate
    0.0005
    >>> keras_t2t.training.load_recipe("finetune", images=3000).epochs
    16
    """
    if str(name) == "finetune":
        if not images:
            raise ValueError("Expected the number of images for the recipe finetune; received: images=0")
        return finetune(images, model or "t2t_vit_14")
    if str(name) in RECIPES:
        return _for_model(RECIPES[str(name)], model)
    values = _values_in_yaml(name)
    if "model" in values:
        return _for_model(Recipe().replace(**values), model)
    return _for_model(Recipe(), model).replace(**values)


def _for_model(recipe, model):
    """Returns a recipe for another variant, with the image size and the crops of that variant if its size is different."""
    if model in (None, recipe.model):
        return recipe
    size = find_variant(model).image_size
    before = recipe.image_size if recipe.model in REFERENCE_NAMES else find_variant(recipe.model).image_size
    if size == before:
        return recipe.replace(model=model)
    padding = round(recipe.crop_padding * size / recipe.image_size)
    return recipe.replace(
        model=model, image_size=size, crop_padding=padding, eval_crop_fraction=find_variant(model).crop_fraction
    )


def _values_in_yaml(name):
    if not pathlib.Path(name).is_file():
        names = (*RECIPES, "finetune")
        raise ValueError(
            f"Expected one of the recipes {', '.join(names)}, or a YAML file; received: {str(name)!r}"
            f"{did_you_mean(name, names) or did_you_mean_file(name)}"
        )
    values = read_yaml(name)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"Expected a YAML mapping of setting names to values in {name}")
    return values
