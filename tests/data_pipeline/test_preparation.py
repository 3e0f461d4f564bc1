"""Reading and preparing one image: geometry, grayscale files, and agreement with Pillow."""

import pathlib

import numpy as np
import PIL.Image
import pytest
import sklearn.datasets

import keras_t2t
from keras_t2t.data import read_view
from keras_t2t.data.preparation import center_view
from keras_t2t.preprocessing import Preprocessing


def smooth_picture(height, width):
    """Returns a picture with smooth areas and edges, in three channels."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + i) * np.cos(y / 7 - i) + ((x // 31 + y // 23 + i) % 2) for i in range(3)]
    return np.clip(127 + 60 * np.stack(waves, -1), 0, 255).astype("uint8")


@pytest.mark.parametrize(("height", "width"), [(500, 375), (301, 640), (90, 97)])
@pytest.mark.parametrize(("size", "crop"), [((224, 224), 0.9), ((384, 384), 1.0), ((64, 64), 0.875)])
def test_resizing_agrees_with_pillow(height, width, size, crop, tmp_path):
    PIL.Image.fromarray(smooth_picture(height, width)).save(tmp_path / "x.png")
    pixels = read_view(tmp_path / "x.png", Preprocessing(image_size=size, crop_fraction=crop))
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - pillow_view(tmp_path / "x.png", size, crop)).mean() < 0.5


def pillow_view(path, size, crop):
    """Returns the same view made by Pillow, the way timm makes it."""
    image = PIL.Image.open(path)
    short = int(size[0] / crop)
    scale = short / min(image.size)
    resized = image.resize([max(short, round(side * scale)) for side in image.size], PIL.Image.BICUBIC)
    left, top = (resized.width - size[1]) // 2, (resized.height - size[0]) // 2
    return np.asarray(resized.crop((left, top, left + size[1], top + size[0])), "float32")


@pytest.mark.parametrize(("size", "crop"), [((224, 224), 0.9), ((384, 384), 1.0), ((64, 64), 0.875)])
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_decoding_and_resizing_of_photos_agree_with_pillow(name, size, crop):
    path = pathlib.Path(sklearn.datasets.__file__).parent / "images" / name  # 640x427, of scikit-learn
    difference = np.abs(read_view(path, Preprocessing(image_size=size, crop_fraction=crop)) - pillow_view(path, size, crop))
    assert difference.mean() < 0.5


def test_a_size_that_is_not_square_is_covered(tmp_path):
    PIL.Image.fromarray(smooth_picture(100, 300)).save(tmp_path / "x.png")
    assert read_view(tmp_path / "x.png", Preprocessing(image_size=(64, 48))).shape == (64, 48, 3)


def test_grayscale_files_become_rgb(tmp_path):
    gray = smooth_picture(64, 64)[..., 0]
    PIL.Image.fromarray(gray).save(tmp_path / "x.png")
    np.testing.assert_array_equal(
        read_view(tmp_path / "x.png", Preprocessing(image_size=(64, 64), crop_fraction=1.0)), np.stack([gray] * 3, -1)
    )


def test_files_that_are_not_images(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"^Cannot read .*x\.jpg: not an image \(starts with b'"):
        read_view(tmp_path / "x.jpg", Preprocessing())
    with pytest.raises(FileNotFoundError):
        read_view(tmp_path / "none.jpg", Preprocessing())


@pytest.mark.parametrize("path", ["photos/a.png", pathlib.Path("photos/a.png")])
def test_a_single_path_in_place_of_several(path):
    model = keras_t2t.T2TViTTiny32()
    for function in (keras_t2t.data.load_images, lambda path, model: keras_t2t.predict_images(model, path)):
        with pytest.raises(ValueError, match=r"Expected several paths, .*; received the path 'photos/a\.png'"):
            function(path, model)


def test_every_interpolation_returns_floats():
    pixels = smooth_picture(30, 40)
    for interpolation in ("nearest", "bilinear"):
        view = center_view(pixels, Preprocessing(image_size=(15, 20), crop_fraction=1.0, interpolation=interpolation))
        assert view.dtype == "float32"
        assert set(np.unique(view)) <= set(np.unique(pixels)) or interpolation == "bilinear"


@pytest.mark.parametrize("vertical", [False, True])
def test_very_elongated_images(vertical):
    """Resized as a whole, this one would take 100 GB."""
    values = np.arange(120_000) // 1000
    pixels = np.repeat(values[:, None, None], 3, axis=-1).astype("uint8")
    view = center_view(pixels if vertical else pixels.swapaxes(0, 1), Preprocessing(image_size=(230, 260), crop_fraction=1.0))
    np.testing.assert_array_equal(np.unique(view), [59, 60])  # the center of the image is the border between these
    first, last = (view[0], view[-1]) if vertical else (view[:, 0], view[:, -1])
    assert np.all(first == 59) and np.all(last == 60)


@pytest.mark.parametrize("size", [(12, 3), (3, 12)])
def test_elongated_views_show_the_whole_image(size):
    pixels = smooth_picture(40 * size[0], 40 * size[1])
    view = center_view(pixels, Preprocessing(image_size=size, crop_fraction=1.0, interpolation="area"))
    np.testing.assert_allclose(view, np.round(pixels.reshape(size[0], 40, size[1], 40, 3).mean((1, 3))), atol=1)
