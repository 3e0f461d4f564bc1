"""Data pipelines with `tf.data` that turn image files and datasets into batches for training and evaluation."""

from keras_t2t.data.augment import Augmentation
from keras_t2t.data.check import find_bad_files, without_bad_files
from keras_t2t.data.loading import from_folder, from_tfds, open_data
from keras_t2t.data.pipeline import cached, evaluation_batches, padded_evaluation_batches, training_batches
from keras_t2t.data.preparation import as_input, center_view, load_image, load_images, normalize_images, read_view
from keras_t2t.data.sources import ImageSource, IndexedSource, StreamSource, from_arrays
from keras_t2t.errors import DataError

__all__ = [
    "Augmentation",
    "DataError",
    "ImageSource",
    "IndexedSource",
    "StreamSource",
    "as_input",
    "cached",
    "center_view",
    "evaluation_batches",
    "find_bad_files",
    "from_arrays",
    "from_folder",
    "from_tfds",
    "load_image",
    "load_images",
    "normalize_images",
    "open_data",
    "padded_evaluation_batches",
    "read_view",
    "training_batches",
    "without_bad_files",
]
