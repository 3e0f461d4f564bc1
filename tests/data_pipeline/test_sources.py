"""Folders, arrays, and TensorFlow Datasets: what is found, how it is split, and which errors are raised."""

import os
import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import keras_t2t
from keras_t2t.data import (
    DataError,
    IndexedSource,
    StreamSource,
    cached,
    evaluation_batches,
    find_bad_files,
    from_arrays,
    from_folder,
    from_tfds,
    without_bad_files,
)
from keras_t2t.data.check import explain_data_errors, other_files
from keras_t2t.data.decoding import decode
from keras_t2t.data.sources import SUFFIXES

COUNTS = {"daisy": 10, "rose": 3, "tulip": 25}


def write_images(folder, counts=COUNTS, size=(9, 7)):
    """Writes images of a single color, whose red value is the index within the class."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            PIL.Image.new("RGB", size, (index, 0, 0)).save(folder / name / f"{index:03d}.png")


def files(source):
    return [os.path.relpath(path, os.path.commonpath(list(source.images))) for path in source.images]


def test_a_folder_without_splits_holds_out_a_fraction_of_every_class(tmp_path):
    write_images(tmp_path)
    sources = from_folder(tmp_path, validation_fraction=0.2, seed=3)
    assert sources["train"].classes == sources["val"].classes == ("daisy", "rose", "tulip")
    assert np.bincount(sources["val"].labels).tolist() == [2, 1, 5]
    assert np.bincount(sources["train"].labels).tolist() == [8, 2, 20]
    assert not set(files(sources["train"])) & set(files(sources["val"]))
    for source in sources.values():
        assert all(
            os.path.basename(os.path.dirname(p)) == source.classes[n] for p, n in zip(source.images, source.labels, strict=True)
        )
    again, other = (from_folder(tmp_path, 0.2, seed)["val"] for seed in (3, 4))
    assert files(again) == files(sources["val"]) != files(other)


@pytest.mark.parametrize(
    ("names", "expected"), [(("train", "val", "test"), (38, 20, 6)), (("Training", "Testing"), (38, 6, 6))]
)
def test_a_folder_with_splits(names, expected, tmp_path):
    for name, scale in zip(names, (1, 0.5, 0.2) if len(names) == 3 else (1, 0.2), strict=True):
        write_images(tmp_path / name, {label: max(1, round(count * scale)) for label, count in COUNTS.items()})
    sources = from_folder(tmp_path)
    lengths = tuple(len(sources[split]) for split in ("train", "val", "test"))
    assert lengths == (38, *(len(list((tmp_path / n).rglob("*.png"))) for n in (names[1], names[-1])))
    assert lengths[0] == expected[0]


def test_every_class_keeps_an_image_for_training(tmp_path):
    write_images(tmp_path, {"daisy": 10, "rose": 2})
    sources = from_folder(tmp_path, validation_fraction=0.9)
    assert [np.bincount(sources[split].labels).tolist() for split in ("train", "val")] == [[1, 1], [9, 1]]
    for fraction in (1.0, 20, -0.1):
        for function in (from_folder, from_tfds):
            with pytest.raises(ValueError, match=rf"validation_fraction: expected a number in \[0, 1\); .*={fraction}"):
                function(str(tmp_path), validation_fraction=fraction)


def test_hidden_files_are_left_out(tmp_path):
    write_images(tmp_path, {"daisy": 2, "rose": 3, "rose/.ipynb_checkpoints": 1, "__MACOSX/rose": 2, ".trash": 2})
    (tmp_path / "daisy" / "._000.png").write_bytes(b"Mac OS X")
    sources = from_folder(tmp_path)
    assert sources["train"].classes == ("daisy", "rose")
    assert sorted(len(source) for source in sources.values()) == [2, 3]


def test_links_to_folders_are_followed_once(tmp_path):
    write_images(tmp_path / "linked", {"more": 4})
    write_images(tmp_path / "data", {"daisy": 3, "rose": 2})
    (tmp_path / "data" / "daisy" / "link").symlink_to(tmp_path / "linked" / "more")
    (tmp_path / "data" / "daisy" / "again").symlink_to(tmp_path / "linked" / "more")
    (tmp_path / "data" / "rose" / "loop").symlink_to(tmp_path / "data" / "rose")
    (tmp_path / "data" / "rose" / "broken.png").symlink_to(tmp_path / "nothing.png")
    sources = from_folder(tmp_path / "data")
    found = sorted(os.path.relpath(path, tmp_path / "data") for source in sources.values() for path in source.images)
    daisies = [f"daisy/{index:03d}.png" for index in range(3)] + [f"daisy/again/{index:03d}.png" for index in range(4)]
    assert found == sorted([*daisies, "rose/000.png", "rose/001.png"])


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    write_images(tmp_path, {"bus": 2, "car": 2, "train": 3})
    assert from_folder(tmp_path)["train"].classes == ("bus", "car", "train")
    write_images(tmp_path / "train", {"diesel": 2, "steam": 2})
    with pytest.raises(DataError, match=r"either class folders or split folders in .*; found \['train', 'bus', 'car'\]"):
        from_folder(tmp_path)


def test_two_folders_for_one_split_are_refused(tmp_path):
    for split in ("train", "val", "valid"):
        write_images(tmp_path / split, {"daisy": 2, "rose": 2})
    with pytest.raises(DataError, match=r"split folders in .*; found \['train', 'val', 'valid'\]"):
        from_folder(tmp_path)


def test_rejects_unusable_folders(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*none"):
        from_folder(tmp_path / "none")
    with pytest.raises(DataError, match="found 0 subfolders"):
        from_folder(tmp_path)
    write_images(tmp_path, {"daisy": 2})
    with pytest.raises(
        DataError, match=r"two or more subfolders of .*, one for each class, with images in each; found 1 subfolders"
    ):
        from_folder(tmp_path)
    (tmp_path / "rose").mkdir()
    (tmp_path / "rose" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"found no images \(\.jpg, .*, \.avif\) in \['rose'\]"):
        from_folder(tmp_path)
    write_images(tmp_path, {"lily": 1})
    os.rmdir(tmp_path / "rose") if not list((tmp_path / "rose").iterdir()) else os.remove(tmp_path / "rose" / "notes.txt")
    os.rmdir(tmp_path / "rose")
    with pytest.raises(DataError, match="two or more images in every class, to hold one out; 'lily' has 1"):
        from_folder(tmp_path)


def test_rejects_splits_with_different_classes(tmp_path):
    write_images(tmp_path / "train", {"daisy": 1, "rose": 1})
    write_images(tmp_path / "val", {"daisy": 1, "tulip": 1})
    with pytest.raises(DataError, match=r"same classes in .*train and .*val; only in one of them: \['rose', 'tulip'\]"):
        from_folder(tmp_path)


def test_from_arrays():
    images = np.zeros((4, 5, 6, 3), "uint8")
    assert from_arrays(images, [[0], [1], [1], [2]]).classes == ("0", "1", "2")
    with pytest.raises(DataError, match=r"4 images and labels of shape \(3,\)"):
        from_arrays(images, [0, 1, 2])
    with pytest.raises(DataError, match="labels from 0 to 1; received: -1 to 2"):
        from_arrays(images, [0, 1, 2, -1], ["a", "b"])
    with pytest.raises(DataError, match=r"Expected images of shape \(N, H, W, 3\) or \(N, H, W, 1\); received: \(4, 5, 6\)"):
        from_arrays(images[..., 0], [0, 1, 2, 3])


def test_every_order_has_each_image_once_and_shards_split_them():
    source = from_arrays(np.arange(11, dtype="uint8").reshape(11, 1, 1, 1), np.arange(11))

    def order(seed, shard=(0, 1)):
        return [int(label) for _, label in source.elements(seed, shard).as_numpy_iterator()]

    assert order(None) == list(range(11))
    first, second = order([1, 2]), order([1, 3])
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != second and first == order([1, 2])
    halves = [order([1, 2], (i, 2)) for i in range(2)]
    assert [len(half) for half in halves] == [5, 5]
    assert sorted(halves[0] + halves[1]) == sorted(first[:10])


@pytest.mark.slow
def test_bad_files_are_found_and_dropped(tmp_path):
    write_images(tmp_path)
    photo = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype="uint8"))
    for name, mode in [("cmyk.jpg", "CMYK"), ("gray.jpg", "L"), ("palette.png", "P"), ("alpha.png", "RGBA"), ("bit.png", "1")]:
        photo.convert(mode).save(tmp_path / "rose" / name)
    photo.save(tmp_path / "rose" / "animated.gif", save_all=True, append_images=[photo.rotate(90)])
    PIL.Image.fromarray(np.arange(12, dtype="uint16").reshape(3, 4) * 5000).save(tmp_path / "rose" / "sixteen.png")
    photo.save(tmp_path / "whole.jpg")
    (tmp_path / "rose" / "broken.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:600])
    (tmp_path / "rose" / "empty.png").touch()
    (tmp_path / "tulip" / "text.jpeg").write_text("no image")
    everything = from_folder(tmp_path)
    found = sorted(os.path.basename(path) for part in ("train", "val") for path in find_bad_files(everything[part]))
    assert found == ["broken.jpg", "empty.png", "text.jpeg"]
    rest, bad = without_bad_files(everything["train"])
    assert len(rest) + len(bad) == len(everything["train"])
    assert find_bad_files(rest) == []


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("cmyk.jpg", "CMYK", {}),
        ("gray.jfif", "L", {"format": "JPEG"}),
        ("palette.png", "P", {}),
        ("bit.png", "1", {}),
        ("color.bmp", "RGB", {}),
        ("gray.bmp", "L", {}),
        ("palette.bmp", "P", {}),
        ("few.bmp", "P", {}),
        ("still.gif", "P", {}),
        ("lossless.webp", "RGB", {"lossless": True}),
    ],
)
def test_all_formats_are_decoded_like_pillow(name, mode, options, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (13, 22, 3), dtype="uint8")
    image = PIL.Image.fromarray(pixels)
    image = image.quantize(5) if name == "few.bmp" else image.convert(mode)
    image.save(tmp_path / name, **options)
    assert (tmp_path / name).suffix in SUFFIXES
    decoded = cached(IndexedSource(np.array([str(tmp_path / name)]), np.zeros(1, int), ("a",))).images
    np.testing.assert_array_equal(decoded[0], np.asarray(PIL.Image.open(tmp_path / name).convert("RGB")))


def test_decodes_the_first_frame_of_animations_and_16_bit_files(tmp_path):
    red, blue = (PIL.Image.new("RGB", (7, 5), color) for color in ((200, 10, 20), (10, 20, 200)))
    red.save(tmp_path / "red.gif", save_all=True, append_images=[blue])
    levels = np.arange(15, dtype="uint16").reshape(3, 5) * 4000
    PIL.Image.fromarray(levels).save(tmp_path / "sixteen.png")
    gif, sixteen = (decode(tf.io.read_file(str(tmp_path / name))) for name in ("red.gif", "sixteen.png"))
    np.testing.assert_array_equal(gif, np.broadcast_to([200, 10, 20], (5, 7, 3)))
    np.testing.assert_array_equal(sixteen, np.repeat((levels // 256)[..., None], 3, -1))


def test_other_files_are_found_by_their_suffix(tmp_path):
    write_images(tmp_path, {"daisy": 2, "rose": 2})
    for name in ("daisy/photo.PSD", "rose/notes.txt", "rose/.hidden"):
        (tmp_path / name).touch()
    assert [os.path.relpath(path, tmp_path) for path in other_files(tmp_path)] == ["daisy/photo.PSD", "rose/notes.txt"]


def test_rejects_stream_labels_out_of_range():
    source = from_arrays(np.zeros((5, 8, 8, 3), "uint8"), [0, 1, 0, 1, 1], ["a", "b"])
    for offset in (-1, 1):
        dataset = source.elements(None).map(lambda image, label, offset=offset: (image, label + offset))
        stream = StreamSource(dataset, 5, ("a", "b"))
        for seed in (None, [1, 2]):
            with (
                pytest.raises(DataError, match="Expected labels from 0 to 1; some are out of range"),
                explain_data_errors(stream),
            ):
                list(stream.elements(seed))


def test_rejects_a_class_with_only_bad_files(tmp_path):
    write_images(tmp_path, {"daisy": 3})
    (tmp_path / "rose").mkdir()
    for index in range(5):
        (tmp_path / "rose" / f"{index}.jpg").touch()
    with pytest.raises(DataError, match=r"at least one readable image in every class; found none in \['rose'\]"):
        without_bad_files(from_folder(tmp_path)["train"])


def test_from_tfds(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyShapes(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["disc", "square"])}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(7), "test": self._generate_examples(3)}

        def _generate_examples(self, count):
            for index in range(count):
                yield index, {"image": np.full((5, 6, 3), index, "uint8"), "label": index % 2}

    sources = from_tfds("tiny_shapes", tmp_path)
    assert {split: len(source) for split, source in sources.items()} == {"val": 3, "train": 7, "test": 3}
    assert sources["train"].classes == ("disc", "square")
    elements = [(int(tf.io.decode_image(image)[0, 0, 0]), int(label)) for image, label in sources["train"].elements(None)]
    assert sorted(elements) == [(index, index % 2) for index in range(7)]
    assert cached(sources["train"]) is sources["train"]  # streams are returned as they are
    shuffled = [[int(tf.io.decode_image(i)[0, 0, 0]) for i, _ in sources["train"].elements([4, epoch])] for epoch in (0, 1, 0)]
    assert shuffled[0] == shuffled[2] != shuffled[1]
    assert sorted(shuffled[1]) == list(range(7))
    shards = [list(sources["train"].elements([4, 0], (i, 2)).as_numpy_iterator()) for i in range(2)]
    assert [len(shard) for shard in shards] == [3, 3]  # one image is dropped, so that both shards have the same number
    assert len({bytes(image) for shard in shards for image, _ in shard}) == 6
    with pytest.raises(DataError, match="Cannot prepare the dataset 'no_such_dataset' of TensorFlow Datasets: "):
        from_tfds("no_such_dataset", tmp_path)


def test_from_tfds_without_a_validation_split_or_classes(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyFlowers(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in ("classes", "texts"))

        def _info(self):
            label = (
                tfds.features.ClassLabel(names=["a", "b"]) if self.builder_config.name == "classes" else tfds.features.Text()
            )
            features = {"image": tfds.features.Image(), "label": label}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index in range(20):
                yield index, {"image": np.full((5, 6, 3), index, "uint8"), "label": "ab"[index % 2]}

    sources = from_tfds("tiny_flowers/classes", tmp_path, validation_fraction=0.3)
    seen = {
        split: {int(tf.io.decode_image(image)[0, 0, 0]) for image, _ in source.elements(None)}
        for split, source in sources.items()
    }
    assert {split: len(source) for split, source in sources.items()} == {"train": 14, "val": 6}
    assert len(seen["train"]) == 14 and seen["train"] | seen["val"] == set(range(20))
    with pytest.raises(
        DataError, match=r"images with class labels; 'tiny_flowers/texts' has the features \['image', 'label'\]"
    ):
        from_tfds("tiny_flowers/texts", tmp_path)


def test_labels_of_any_integer_type():
    images = np.zeros((3, 4, 4, 3), "uint8")
    for dtype, largest in (("uint8", 255), ("int8", 127)):
        source = from_arrays(images, np.array([0, largest, 1], dtype))
        assert source.labels.tolist() == [0, largest, 1] and len(source.classes) == largest + 1
    with pytest.raises(
        DataError, match=r"Expected an integer label for every image; .* labels of shape \(3,\) and dtype float64"
    ):
        from_arrays(images, [0.0, 1.0, 1.0])


def test_labels_of_a_source_are_checked():
    images = np.zeros((3, 8, 8, 3), "uint8")
    with pytest.raises(DataError, match="Expected labels from 0 to 1; received: 0 to 2"):
        IndexedSource(images, np.array([0, 1, 2]), ("a", "b"))
    with pytest.raises(DataError, match=r"Expected an integer label for every image; .* 3 images and labels of shape \(2,\)"):
        IndexedSource(images, np.array([0, 1]), ("a", "b"))


@pytest.mark.parametrize("change", [lambda x: x / 255, lambda x: x.astype(int) - 1, lambda x: x * 300.0, lambda x: x > 3])
def test_values_of_images_are_checked(change):
    """Pixels in [0, 1] would be rounded to black images."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    with pytest.raises(DataError, match=r"Expected images with values in \[0, 255\]; received: values from .* of dtype"):
        from_arrays(change(images), [0, 1, 1])


def test_paths_of_any_type(tmp_path):
    names = [b"caf\xe9.png", "é.png".encode(), b"c.png"]  # the first one is not UTF-8
    paths = [os.path.join(os.fsencode(tmp_path), name) for name in names]
    for index, path in enumerate(paths):
        with open(path, "wb") as file:
            PIL.Image.fromarray(np.full((4, 5, 3), 40 * index, "uint8")).save(file, "PNG")
    strings = [os.fsdecode(path) for path in paths]
    for images in (paths, strings, [pathlib.Path(path) for path in strings], np.array(strings, object), np.array(paths)):
        source = IndexedSource(images, np.array([1, 0, 1]), ("a", "b"))
        assert source.from_files
        batch, _ = next(iter(evaluation_batches(source, keras_t2t.Preprocessing(image_size=(4, 5)), 3)))
        np.testing.assert_array_equal(batch[:, 1, 2, 0], [0, 40, 80])
        assert find_bad_files(source) == []
    with pytest.raises(keras_t2t.DataError, match=r"Expected paths of files, or an array of pixels; received: .*not int"):
        IndexedSource(np.array([3, "a.png"], object), np.array([1, 0]), ("a", "b"))


def test_names_of_classes_are_valid_utf_8(tmp_path):
    write_images(tmp_path, {os.fsdecode(b"caf\xe9"): 3, "thé": 2})
    source = from_folder(tmp_path)["train"]
    assert source.classes == ("caf\ufffd", "thé")
    assert len(source) == 3 and find_bad_files(source) == []


def test_names_of_classes_may_be_an_array():
    names, labels = np.unique(["b", "a", "b"], return_inverse=True)
    assert from_arrays(np.zeros((3, 8, 8, 3)), labels, names).classes == ("a", "b")
    for labels in (["a", "b", "b"], [0.0, np.nan, 1.0], [0, None, 1]):
        with pytest.raises(DataError, match="Expected an integer label for every image"):
            from_arrays(np.zeros((3, 8, 8, 3)), labels)
