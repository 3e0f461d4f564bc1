"""Training with `model.fit`, from recipes."""

from keras_t2t.training.distribution import make_strategy
from keras_t2t.training.recipes import RECIPES, Recipe, load_recipe
from keras_t2t.training.train import train

__all__ = ["RECIPES", "Recipe", "load_recipe", "make_strategy", "train"]
