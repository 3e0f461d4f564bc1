"""Data pipelines with `tf.data` that turn image files and datasets into batches for training and evaluation."""

from keras_t2t.data.boxes import BoxSource, from_coco, from_voc
from keras_t2t.data.check import find_bad_files, without_bad_files
from keras_t2t.data.loading import from_folder, from_tfds, open_data
from keras_t2t.data.masks import MaskSource, from_masks
from keras_t2t.data.pipeline import cached, evaluation_batches, padded_evaluation_batches, training_batches
from keras_t2t.data.preparation import as_input, center_view, load_image, load_images, normalize_images, read_view
from keras_t2t.data.sources import ImageSource, IndexedSource, StreamSource, from_arrays
from keras_t2t.data.views import detection_batches, segmentation_batches
from keras_t2t.errors import DataError
from keras_t2t.recipes import Augmentation

__all__ = [
    "Augmentation",
    "BoxSource",
    "DataError",
    "ImageSource",
    "IndexedSource",
    "MaskSource",
    "StreamSource",
    "as_input",
    "cached",
    "center_view",
    "detection_batches",
    "evaluation_batches",
    "find_bad_files",
    "from_arrays",
    "from_coco",
    "from_folder",
    "from_masks",
    "from_tfds",
    "from_voc",
    "load_image",
    "load_images",
    "normalize_images",
    "open_data",
    "padded_evaluation_batches",
    "read_view",
    "segmentation_batches",
    "training_batches",
    "without_bad_files",
]
