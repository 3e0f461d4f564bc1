"""Inference with trained models: predictions for image files, and faster graphs for inference."""

from keras_t2t.inference.optimize import optimize_for_inference
from keras_t2t.inference.predict import image_probabilities, keras_runtime, predict_images, probabilities

__all__ = ["image_probabilities", "keras_runtime", "optimize_for_inference", "predict_images", "probabilities"]
