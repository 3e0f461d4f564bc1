"""Augmentation is compared with Pillow, with formulas, and with statistics of many draws."""

import dataclasses
import math

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
import tensorflow as tf

from keras_t2t.data.augment import Augmentation, random_crop, random_window
from keras_t2t.data.mixing import beta, cutmix, mix, mixup, smooth
from keras_t2t.data.pipeline import augment_view
from keras_t2t.data.randaugment import GRAY, OPERATIONS

Y, X = np.mgrid[:60, :80]
PHOTO = np.clip(
    127 + 60 * np.stack([np.sin(X / 9 + i) * np.cos(Y / 7 - i) + ((X // 31 + Y // 23 + i) % 2) for i in range(3)], -1), 0, 255
).astype("uint8")
PIL_PHOTO = PIL.Image.fromarray(PHOTO)
NO_AUGMENTATION = Augmentation(
    crop_mode="none", flip=False, rand_augment_num_ops=0, random_erase_prob=0.0, mixup=0.0, cutmix=0.0, label_smoothing=0.0
)


def affine(*matrix):
    return PIL_PHOTO.transform(PIL_PHOTO.size, PIL.Image.AFFINE, matrix, PIL.Image.BILINEAR, fillcolor=tuple(GRAY))


PIL_OPERATIONS = {
    "auto_contrast": lambda half: PIL.ImageOps.autocontrast(PIL_PHOTO),
    "equalize": lambda half: PIL.ImageOps.equalize(PIL_PHOTO),
    "invert": lambda half: PIL.ImageOps.invert(PIL_PHOTO),
    "rotate": lambda half: PIL_PHOTO.rotate(30 * half, PIL.Image.BILINEAR, fillcolor=tuple(GRAY)),
    "posterize": lambda half: PIL.ImageOps.posterize(PIL_PHOTO, 2),
    "solarize": lambda half: PIL.ImageOps.solarize(PIL_PHOTO, 128),
    "solarize_add": lambda half: np.where(PHOTO < 128, np.minimum(PHOTO.astype(int) + 55, 255), PHOTO),
    "color": lambda half: PIL.ImageEnhance.Color(PIL_PHOTO).enhance(1 + 0.9 * half),
    "contrast": lambda half: PIL.ImageEnhance.Contrast(PIL_PHOTO).enhance(1 + 0.9 * half),
    "brightness": lambda half: PIL.ImageEnhance.Brightness(PIL_PHOTO).enhance(1 + 0.9 * half),
    "sharpness": lambda half: PIL.ImageEnhance.Sharpness(PIL_PHOTO).enhance(1 + 0.9 * half),
    "shear_x": lambda half: affine(1, 0.3 * half, 0, 0, 1, 0),
    "shear_y": lambda half: affine(1, 0, 0, 0.3 * half, 1, 0),
    "translate_x": lambda half: affine(1, 0, 0.45 * half * 80, 0, 1, 0),
    "translate_y": lambda half: affine(1, 0, 0, 0, 1, 0.45 * half * 60),
}
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def augmented(image, seeds, **settings):
    """Returns the image as augmented with each seed, compiled only once."""
    augmentation = dataclasses.replace(NO_AUGMENTATION, **settings)
    function = tf.function(lambda seed: augment_view(image, augmentation, seed))
    results = [function(tf.constant(seed)).numpy() for seed in seeds]
    assert all(result.dtype == np.uint8 for result in results)
    return results


@pytest.mark.parametrize("half", [0.5, -0.5])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_match_pillow(name, half):
    result = np.asarray(OPERATIONS[name](tf.constant(PHOTO), tf.constant(0.5), tf.constant(half)))
    assert result.dtype == np.uint8
    difference = np.abs(result - np.asarray(PIL_OPERATIONS[name](half), "float32"))
    assert np.median(difference) < 1.5
    assert difference.mean() < 1.5
    if name not in GEOMETRIC:  # these differ by half a pixel at the edges of the image
        assert difference.max() <= 1


@pytest.mark.parametrize("strength", [-1.0, -0.37, 0.83, 1.0])
@pytest.mark.parametrize(("name", "axis"), [("translate_x", 1), ("translate_y", 0)])
def test_translations_interpolate_linearly_and_fill_with_gray(name, axis, strength):
    """Compares with NumPy, up to the edges of the image, compiled as in training."""
    translate = tf.function(OPERATIONS[name], jit_compile=True)
    result = translate(tf.constant(PHOTO), tf.constant(abs(strength)), tf.constant(strength)).numpy()
    side = PHOTO.shape[axis]
    padded = np.tile(np.array(GRAY, "float64"), (60 + 2 * side, 80 + 2 * side, 1))
    padded[side : side + 60, side : side + 80] = PHOTO
    shift = 0.45 * strength * side
    whole = math.floor(shift)
    before, after = (np.roll(padded, -whole - step, axis)[side : side + 60, side : side + 80] for step in (0, 1))
    np.testing.assert_allclose(result, before + (shift - whole) * (after - before), atol=0.51)


@pytest.mark.slow
def test_rand_augment_changes_about_three_quarters_of_images_and_is_reproducible():
    image = tf.constant(PHOTO)
    results = augmented(image, [(3, i) for i in range(200)], rand_augment_num_ops=2)
    unchanged = np.mean([np.array_equal(result, PHOTO) for result in results])
    assert 0.13 < unchanged < 0.4  # 1/4, plus operations that have no effect on this image
    assert len({result.tobytes() for result in results}) > 100
    np.testing.assert_array_equal(augmented(image, [(3, 7)], rand_augment_num_ops=2)[0], results[7])


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("suffix", ["JPEG", "PNG"])
def test_resized_crops_come_from_the_image(encoded, suffix, tmp_path):
    """Red encodes x and green encodes y, so the colors of a crop say where it was taken."""
    ramp = np.stack([X * 3, Y * 4, np.full_like(X, 128)], -1).astype("uint8")
    PIL.Image.fromarray(ramp).save(
        tmp_path / "ramp", suffix, **({"quality": 100, "subsampling": 0} if suffix == "JPEG" else {})
    )
    image = tf.io.read_file(str(tmp_path / "ramp")) if encoded else tf.constant(ramp)
    augmentation = dataclasses.replace(NO_AUGMENTATION, crop_mode="resized", interpolation="bilinear")
    crop = tf.function(lambda seed: random_crop(image, (32, 32), augmentation, seed))
    areas, ratios = [], []
    for index in range(60):
        view = crop(tf.constant([5, index])).numpy()
        assert view.shape == (32, 32, 3)
        width, height = np.ptp(view[16, :, 0]) / 3 + 1, np.ptp(view[:, 16, 1]) / 4 + 1
        areas.append(width * height / (60 * 80))
        ratios.append(width / height)
    assert 0.05 < min(areas) < 0.25 and 0.75 < max(areas) < 1.05
    assert min(ratios) > 0.65 and max(ratios) < 1.5


def test_areas_and_aspect_ratios_of_crops_are_uniform():
    shape, draw = tf.constant([333, 500, 3]), tf.function(random_window)
    windows = np.array([draw(shape, (0.08, 0.6), (3 / 4, 4 / 3), tf.constant([3, i])) for i in range(2000)], "float64")
    top, left, height, width = windows.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 333).all() and (left + width <= 500).all()
    quantiles = np.linspace(0.1, 0.9, 9)
    areas, ratios = height * width / (333 * 500), np.log(width / height)
    small = areas < 0.4  # these fit for every aspect ratio
    np.testing.assert_allclose(np.quantile(areas[small], quantiles), 0.08 + 0.32 * quantiles, atol=0.02)
    np.testing.assert_allclose(np.quantile(ratios[small], quantiles), math.log(4 / 3) * (2 * quantiles - 1), atol=0.04)
    np.testing.assert_allclose(np.quantile(top / (333 - height + 1e-9), quantiles), quantiles, atol=0.05)


def test_crop_is_central_if_no_window_fits():
    window = random_window(tf.constant([100, 10, 3]), (0.9, 1.0), (3 / 4, 4 / 3), tf.constant([0, 0])).numpy()
    np.testing.assert_array_equal(window, [43, 0, 13, 10])


def test_views_are_rounded_and_clipped():
    """Bicubic resizing returns fractions and values out of range."""
    values = tf.constant([-3.0, 0.4, 0.6, 254.7, 259.0])[None, :, None] * tf.ones((4, 1, 3))
    np.testing.assert_array_equal(augmented(values, [(0, 0)])[0][2, :, 1], [0, 0, 1, 255, 255])


def test_padded_crops_shift_the_image_over_black():
    image = np.full((8, 8, 3), 200, "uint8")
    augmentation = dataclasses.replace(NO_AUGMENTATION, crop_mode="padded", crop_padding=2)
    shifts = set()
    for index in range(80):
        view = random_crop(tf.constant(image), (8, 8), augmentation, tf.constant([1, index])).numpy()
        rows, columns = np.flatnonzero(view[:, :, 0].any(1)), np.flatnonzero(view[:, :, 0].any(0))
        assert (view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 200).all()
        shifts.add((8 - len(rows), 8 - len(columns)))
    assert shifts == {(i, j) for i in range(3) for j in range(3)}


def test_half_of_the_images_are_flipped():
    results = augmented(tf.constant(PHOTO), [(2, i) for i in range(200)], flip=True)
    flipped = [np.array_equal(result, PHOTO[:, ::-1]) for result in results]
    assert 70 < sum(flipped) < 130
    assert all(is_flipped or np.array_equal(result, PHOTO) for is_flipped, result in zip(flipped, results, strict=True))


def test_erasing_fills_a_rectangle_with_noise():
    dark, bright = tf.zeros((40, 50, 3), "uint8"), tf.fill((40, 50, 3), tf.constant(255, "uint8"))
    seeds = [(4, index) for index in range(400)]
    areas, values = [], []
    for result, other in zip(*(augmented(image, seeds, random_erase_prob=0.25) for image in (dark, bright)), strict=True):
        inside = (result == other)[..., 0]
        np.testing.assert_array_equal(result == other, np.stack([inside] * 3, -1))
        if inside.any():
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            assert inside.sum() == len(rows) * len(columns) == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            areas.append(inside.mean())
            values.append(result[inside])
    assert 70 < len(areas) < 130
    assert min(areas) > 0.015 and max(areas) < 0.35
    values = np.concatenate(values) / 255
    np.testing.assert_allclose(values.mean(0), [0.485, 0.456, 0.406], atol=0.01)
    np.testing.assert_allclose(values.std(0), [0.229, 0.224, 0.225], atol=0.01)


def test_label_smoothing_is_spread_over_all_classes():
    np.testing.assert_allclose(
        smooth(tf.constant([2, 0]), 4, 0.2), [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]], atol=1e-6
    )


def test_mixup_and_cutmix():
    rng = np.random.default_rng(0)
    images, targets = rng.uniform(0, 255, (5, 12, 16, 3)).astype("float32"), np.eye(5, dtype="float32")
    mixed, mixed_targets = mixup(tf.constant(images), tf.constant(targets), 0.3)
    np.testing.assert_allclose(mixed, 0.3 * images + 0.7 * images[::-1], rtol=1e-5)
    np.testing.assert_allclose(mixed_targets, 0.3 * targets + 0.7 * targets[::-1], rtol=1e-5)
    for index in range(20):
        cut, cut_targets = (r.numpy() for r in cutmix(tf.constant(images), tf.constant(targets), 0.6, tf.constant([1, index])))
        pasted = (cut[0] == images[4]).all(-1)
        assert ((cut[0] == images[0]).all(-1) | pasted).all()
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        assert pasted.sum() == len(rows) * len(columns)  # a rectangle
        np.testing.assert_allclose(cut_targets[0], [1 - pasted.mean(), 0, 0, 0, pasted.mean()], atol=1e-6)
        assert pasted.mean() <= 0.4 + 0.1


def test_a_batch_uses_mixup_or_cutmix_or_neither():
    images, targets = tf.random.stateless_uniform((4, 8, 8, 3), [1, 1]), tf.eye(4)
    augmentation = dataclasses.replace(NO_AUGMENTATION, mixup=0.8, cutmix=1.0, mixup_prob=0.8, mixup_switch_prob=0.5)
    kinds = {"none": 0, "cut": 0, "mixed": 0}
    for index in range(200):
        mixed, _ = mix(images, targets, augmentation, tf.constant([2, index]))
        same = np.isclose(mixed[0], images[0]).all(-1)
        swapped = np.isclose(mixed[0], images[3]).all(-1)
        kinds["none" if same.all() else "cut" if (same | swapped).all() else "mixed"] += 1
    assert 20 < kinds["none"] < 70 and 50 < kinds["cut"] < 110 and 50 < kinds["mixed"] < 110
    assert mix(images, targets, NO_AUGMENTATION, tf.constant([2, 1]))[0] is images


def test_beta_draws_have_the_right_mean_and_variance():
    for alpha in (0.8, 1.0):
        draws = np.array([beta(alpha, tf.constant([3, i])) for i in range(1500)])
        assert abs(draws.mean() - 0.5) < 0.04
        assert abs(draws.var() - 1 / (4 * (2 * alpha + 1))) < 0.012
