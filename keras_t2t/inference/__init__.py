"""Inference with trained models: predictions for image files, and faster graphs for inference."""

from keras_t2t.inference.optimize import optimize_for_inference
from keras_t2t.inference.predict import keras_runtime, predict_images, probabilities, stream_predictions

__all__ = ["keras_runtime", "optimize_for_inference", "predict_images", "probabilities", "stream_predictions"]
