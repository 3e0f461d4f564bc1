"""Training from recipes, with `model.fit`."""

from keras_t2t.errors import TrainingError
from keras_t2t.recipes import RECIPES, Recipe, load_recipe
from keras_t2t.training.detection import (
    DetectionEvaluation,
    DetectionReport,
    Detections,
    coco_average_precision,
    detect,
)
from keras_t2t.training.distribution import make_strategy
from keras_t2t.training.evaluation import EvaluationReport, evaluate
from keras_t2t.training.segmentation import SegmentationEvaluation, SegmentationReport, evaluate_segmenter
from keras_t2t.training.study import run_study
from keras_t2t.training.trainer import train

__all__ = [
    "RECIPES",
    "DetectionEvaluation",
    "DetectionReport",
    "Detections",
    "EvaluationReport",
    "Recipe",
    "SegmentationEvaluation",
    "SegmentationReport",
    "TrainingError",
    "coco_average_precision",
    "detect",
    "evaluate",
    "evaluate_segmenter",
    "load_recipe",
    "make_strategy",
    "run_study",
    "train",
]
