"""The recipes and distribution strategies by name, with checks that need neither data nor devices: no Keras."""

import os
import pathlib

from keras_t2t.errors import did_you_mean, did_you_mean_file

RECIPE_NAMES = ("imagenet_lite", "imagenet", "imagenet_large", "imagenet_384", "transfer", "small_images", "finetune")
STRATEGIES = ("none", "mirrored", "tpu", "jax")


def check_recipe(name: str | os.PathLike) -> None:
    """Checks that a recipe exists.

    Args:
        name: The name of a recipe, or the path of a YAML file.

    Raises:
        ValueError: If there is no such recipe or file.
    """
    if str(name) not in RECIPE_NAMES and not pathlib.Path(name).is_file():
        hint = did_you_mean(name, RECIPE_NAMES) or did_you_mean_file(name)
        names = ", ".join(RECIPE_NAMES)
        raise ValueError(f"Expected one of the recipes {names}, or a YAML file; received: {str(name)!r}{hint}")


def check_strategy_options(
    strategy: str, cpu_devices: int, coordinator: str | None, processes: int | None, process: int | None
) -> None:
    """Checks that a distribution strategy exists, and that the other arguments of `make_strategy` suit it.

    Raises:
        ValueError: If the strategy does not exist, or does not match the other arguments.
    """
    if strategy not in STRATEGIES:
        hint = did_you_mean(strategy, STRATEGIES)
        raise ValueError(f"Expected strategy to be one of {STRATEGIES}; received: strategy={strategy!r}{hint}")
    if strategy in ("none", "tpu") and cpu_devices:
        raise ValueError(f"Expected the strategy 'mirrored' or 'jax' to split the CPU; received: {strategy=}, {cpu_devices=}")
    if strategy != "jax" and (coordinator, processes, process) != (None, None, None):
        raise ValueError(f"Expected the strategy 'jax' for several processes; received: strategy={strategy!r}")
