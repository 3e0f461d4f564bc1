"""Recipes: the settings of training runs, as plain data. This package imports neither Keras nor TensorFlow."""

from keras_t2t.recipes.augmentation import Augmentation
from keras_t2t.recipes.named import RECIPES, load_recipe
from keras_t2t.recipes.recipe import Recipe

__all__ = ["RECIPES", "Augmentation", "Recipe", "load_recipe"]
