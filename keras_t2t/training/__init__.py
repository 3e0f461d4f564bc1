"""Training from recipes, with `model.fit`."""

from keras_t2t.errors import TrainingError
from keras_t2t.training.distribution import make_strategy
from keras_t2t.training.evaluation import EvaluationReport, evaluate
from keras_t2t.training.recipe import Recipe
from keras_t2t.training.recipes import RECIPES, load_recipe
from keras_t2t.training.segmentation import SegmentationEvaluation, SegmentationReport, evaluate_segmenter
from keras_t2t.training.trainer import train

__all__ = [
    "RECIPES",
    "EvaluationReport",
    "Recipe",
    "SegmentationEvaluation",
    "SegmentationReport",
    "TrainingError",
    "evaluate",
    "evaluate_segmenter",
    "load_recipe",
    "make_strategy",
    "train",
]
