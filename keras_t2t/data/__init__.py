"""Images on their way to a model, with tf.data."""

from keras_t2t.data.augment import Augmentation
from keras_t2t.data.evaluation import evaluation_image
from keras_t2t.data.pipeline import cached, evaluation_batches, training_batches
from keras_t2t.data.sources import DataError, Source, StreamSource, from_arrays, from_folder

__all__ = [
    "Augmentation",
    "DataError",
    "Source",
    "StreamSource",
    "cached",
    "evaluation_batches",
    "evaluation_image",
    "from_arrays",
    "from_folder",
    "training_batches",
]
