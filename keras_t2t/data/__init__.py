"""Images on their way to a model."""

from keras_t2t.data.evaluation import evaluation_image

__all__ = ["evaluation_image"]
