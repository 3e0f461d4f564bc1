"""Images on their way to a model, with tf.data."""

from keras_t2t.data.augment import Augmentation
from keras_t2t.data.check import find_bad_files, without_bad_files
from keras_t2t.data.evaluation import default_crop, evaluation_image
from keras_t2t.data.pipeline import cached, evaluation_batches, padded_evaluation_batches, training_batches
from keras_t2t.data.sources import (
    DataError,
    Source,
    StreamSource,
    from_arrays,
    from_folder,
    from_tfds,
    open_data,
)

__all__ = [
    "Augmentation",
    "DataError",
    "Source",
    "StreamSource",
    "cached",
    "default_crop",
    "evaluation_batches",
    "evaluation_image",
    "find_bad_files",
    "from_arrays",
    "from_folder",
    "from_tfds",
    "open_data",
    "padded_evaluation_batches",
    "training_batches",
    "without_bad_files",
]
