"""Training batches depend only on the seed and the epoch; evaluation covers every image once."""

import dataclasses

import keras
import numpy as np
import PIL.Image
import pytest

import keras_t2t
from keras_t2t.data import (
    Augmentation,
    DataError,
    cached,
    evaluation_batches,
    from_arrays,
    from_folder,
    padded_evaluation_batches,
    training_batches,
)
from keras_t2t.preprocessing import Preprocessing

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 16, 12, 3), dtype="uint8")
SOURCE = from_arrays(IMAGES, np.arange(23) % 5)
WHOLE = Preprocessing(image_size=(16, 12), crop_fraction=1.0)
PLAIN = Augmentation(
    crop_mode="none", flip=False, rand_augment_num_ops=0, random_erase_prob=0.0, mixup=0.0, cutmix=0.0, label_smoothing=0.0
)


def batches(count, augmentation=PLAIN, size=(16, 12), **kwargs):
    dataset = training_batches(SOURCE, size, 5, augmentation, **kwargs)
    return [(images.numpy(), targets.numpy()) for images, targets in dataset.take(count)]


def test_an_epoch_has_each_image_at_most_once_with_its_label():
    epoch = batches(4)
    images, targets = (np.concatenate(parts) for parts in zip(*epoch, strict=True))
    indices = [int(np.flatnonzero((image == IMAGES).all((1, 2, 3)))[0]) for image in images]
    assert len(set(indices)) == 20
    np.testing.assert_array_equal(targets.argmax(1), np.array(indices) % 5)
    np.testing.assert_array_equal(targets.sum(1), 1)


@pytest.mark.slow
def test_resumed_training_sees_the_same_batches():
    uninterrupted, resumed = batches(12, Augmentation(), seed=4), batches(8, Augmentation(), seed=4, first_epoch=1)
    for (images, targets), (resumed_images, resumed_targets) in zip(uninterrupted[4:], resumed, strict=True):
        np.testing.assert_array_equal(images, resumed_images)
        np.testing.assert_array_equal(targets, resumed_targets)
    assert not np.array_equal(uninterrupted[0][0], uninterrupted[4][0])
    assert not np.array_equal(uninterrupted[0][0], batches(1, Augmentation(), seed=5)[0][0])


def test_rejects_fewer_images_than_a_batch():
    with pytest.raises(DataError, match="at least one batch of 5 images for each of 5 processes; found 23 images"):
        batches(1, shard=(0, 5))


def test_all_augmentations_combined():
    images, targets = batches(1, Augmentation(), size=(24, 20))[0]
    assert images.shape == (5, 24, 20, 3) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 255
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)


def test_shards_split_an_epoch_and_augment_images_like_one_process():
    unmixed = dataclasses.replace(PLAIN, crop_mode="resized", flip=True, random_erase_prob=0.5)
    whole = {image.tobytes() for images, _ in batches(4, unmixed) for image in images}
    shards = [batches(2, unmixed, shard=(i, 2)) for i in range(2)]
    seen = [{image.tobytes() for images, _ in shard for image in images} for shard in shards]
    assert len(seen[0] | seen[1]) == 20
    assert seen[0] | seen[1] == whole


def test_evaluation_has_each_image_once_in_order():
    dataset = evaluation_batches(SOURCE, WHOLE, 5)
    images, targets = (np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets.argmax(1), SOURCE.labels)


def test_padded_evaluation_has_equal_batch_counts_and_the_right_mean():
    values, batch_counts = [], []
    for index in range(3):  # 8, 8 and 7 images in 2 batches of 5 each
        padded = list(padded_evaluation_batches(SOURCE, WHOLE, 5, shard=(index, 3)).as_numpy_iterator())
        batch_counts.append([len(weights) for _, _, weights in padded])
        values += [np.concatenate([images.mean((1, 2, 3)) * weights for images, _, weights in padded])]
        seen = np.concatenate([targets.argmax(1)[weights > 0] for _, targets, weights in padded])
        np.testing.assert_array_equal(seen, SOURCE.labels[index::3])
    assert batch_counts == [[5, 5]] * 3
    np.testing.assert_allclose(np.mean(values), IMAGES.mean(), rtol=1e-5)


def test_cached_decodes_images_of_one_size(tmp_path):
    for index, image in enumerate(IMAGES[:6]):
        (tmp_path / "ab"[index % 2]).mkdir(exist_ok=True)
        PIL.Image.fromarray(image).save(tmp_path / "ab"[index % 2] / f"{index}.png")
    source = from_folder(tmp_path)["train"]
    pixels = cached(source)
    assert not pixels.from_files
    for path, image in zip(source.images, pixels.images, strict=True):
        np.testing.assert_array_equal(image, np.asarray(PIL.Image.open(path)))
    assert cached(pixels) is pixels
    PIL.Image.fromarray(IMAGES[7][:9]).save(tmp_path / "a" / "8.png")
    PIL.Image.fromarray(IMAGES[7][:9]).save(tmp_path / "a" / "9.png")
    with pytest.raises(DataError, match="Expected images of the same size for caching; received: 2 sizes"):
        cached(from_folder(tmp_path)["train"])


def first(layer):
    """Returns the images and targets of a batch of four images that nothing but `layer` augments."""
    pixels = np.random.default_rng(0).integers(60, 120, (4, 8, 8, 3)).astype("uint8")
    source = keras_t2t.data.from_arrays(pixels, [0, 1, 2, 3])
    plain = keras_t2t.data.Augmentation(
        crop_mode="none", flip=False, rand_augment_num_ops=0, random_erase_prob=0, mixup=0, cutmix=0, label_smoothing=0
    )
    return next(keras_t2t.data.training_batches(source, (8, 8), 4, plain, augment=layer).as_numpy_iterator())


def test_keras_layers_augment_batches():
    images, targets = first(None)
    scaled, same_targets = first(keras.layers.Rescaling(0.5))  # draws nothing, so it does not warn
    np.testing.assert_array_equal(scaled, images * 0.5)
    np.testing.assert_array_equal(same_targets, targets)
    with pytest.warns(UserWarning, match="random_brightness draws its random numbers one after the other"):
        brighter, same_targets = first(keras.layers.RandomBrightness(0.2, seed=1, name="random_brightness"))
    shift = brighter - images
    assert np.ptp(shift, axis=(1, 2, 3)).max() < 1e-4 and np.abs(shift).max() > 1  # one shift for each image
    np.testing.assert_array_equal(same_targets, targets)
    with pytest.warns(UserWarning, match="draws its random numbers"):
        _, mixed = first(keras.layers.CutMix(seed=1))
    assert (mixed != targets).any() and mixed.sum(-1) == pytest.approx(1)
    with pytest.raises(ValueError, match="mix inside several cannot change the targets; pass it as `augment` itself"):
        first(keras.Sequential([keras.layers.CutMix(name="mix")], name="several"))
