"""What a study trains: models, seeds, and fractions of the training images, all with the same recipe."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_t2t.errors import did_you_mean
from keras_t2t.extras import read_yaml
from keras_t2t.variants import REFERENCE_NAMES, STUDY_CONFIGS, VARIANTS


@dataclasses.dataclass(frozen=True)
class Cell:
    """A single training run of a study.

    Attributes:
        model: Name of the model.
        fraction: Fraction of the training images.
        seed: Seed of the run, which also chooses the images.
    """

    model: str
    fraction: float
    seed: int

    @property
    def folder(self) -> pathlib.PurePath:
        """The output folder of the run, within that of the study."""
        return pathlib.PurePath(self.model, f"fraction-{self.fraction:g}", f"seed-{self.seed}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A study: the same recipe for several models, seeds, and fractions of the training images.

    Attributes:
        models: Names of variants (`keras_t2t.VARIANTS`), of `keras_t2t.variants.STUDY_CONFIGS`, or of the convolutional
            networks in `keras_t2t.studies.references`.
        recipe: Name of a recipe for training from scratch, or the path of a YAML file. See `keras_t2t.training.load_recipe`.
        settings: Settings that differ from the recipe.
        seeds: Seeds. Each model is trained once with each seed.
        fractions: Fractions of the training images in (0, 1]. With fewer images, there are more epochs, so that the number of
            steps is the same.

    Raises:
        ValueError: If a value is invalid.
    """

    models: tuple[str, ...]
    recipe: str = "small_images"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    fractions: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not isinstance(self.settings, Mapping) or not all(isinstance(name, str) for name in self.settings):
            raise ValueError(f"Expected a mapping of setting names to values; received: settings={self.settings!r}")
        if not isinstance(self.recipe, str | os.PathLike):
            raise ValueError(f"Expected the name of a recipe, or the path of a YAML file; received: recipe={self.recipe!r}")
        for name, kind in (("models", str), ("seeds", int), ("fractions", (int, float))):
            values = getattr(self, name)
            is_list = isinstance(values, Sequence) and not isinstance(values, str)
            if not is_list or not all(isinstance(value, kind) for value in values):
                raise ValueError(f"Expected a list of {name}; received: {name}={values!r}")
            if not values or len(set(values)) < len(values):
                raise ValueError(f"Expected one or more distinct {name}; received: {name}={list(values)}")
            object.__setattr__(self, name, tuple(values))
        known = [*STUDY_CONFIGS, *REFERENCE_NAMES, *VARIANTS]
        for model in self.models:
            if model not in known:
                raise ValueError(f"Expected models from {', '.join(known)}; received: {model!r}{did_you_mean(model, known)}")
        if not all(0 < fraction <= 1 for fraction in self.fractions):
            raise ValueError(f"Expected fractions in (0, 1]; received: fractions={list(self.fractions)}")
        if self.recipe == "finetune":
            raise ValueError("Expected a recipe for training from scratch; received: recipe='finetune'")
        given = sorted({"model", "seed"} & set(self.settings))
        if given:
            raise ValueError(f"Expected models and seeds outside of the settings; received the settings {given}")

    def cells(self, shard: tuple[int, int] = (0, 1)) -> list[Cell]:
        """Returns the training runs, one seed after the other.

        Args:
            shard: `(index of this shard, number of shards)`. Each shard gets every n-th run.
        """
        cells = [Cell(model, fraction, seed) for seed in self.seeds for fraction in self.fractions for model in self.models]
        return cells[shard[0] :: shard[1]]


def load_study(path: str | os.PathLike) -> Study:
    """Returns the study that a YAML file describes. Its keys are the attributes of `Study`.

    Raises:
        ImportError: If PyYAML is not installed.
        OSError: If the file cannot be read.
        ValueError: If the file has unknown keys or invalid values.
    """
    values = read_yaml(path)
    names = [field.name for field in dataclasses.fields(Study)]
    if not isinstance(values, dict) or values.get("models") is None:
        raise ValueError(f"Expected a YAML mapping with the key models, and possibly others of {', '.join(names)}, in {path}")
    unknown = sorted(set(values) - set(names), key=str)
    if unknown:
        raise ValueError(
            f"Unknown keys {unknown} in {path}; expected some of: {', '.join(names)}{did_you_mean(unknown[0], names)}"
        )
    return Study(**{name: value for name, value in values.items() if value is not None})


def stratified_indices(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns the sorted indices of a random fraction of each class, with at least one image of each.

    Args:
        labels: Class indices of shape `(N,)`.
        fraction: Fraction in (0, 1].
        seed: Seed that chooses the images.
    """
    rng = np.random.default_rng(seed)
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.sort(np.concatenate([rng.permutation(each)[: max(round(fraction * len(each)), 1)] for each in by_class]))
