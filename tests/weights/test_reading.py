"""Reading every format, entry, prefix and dtype of weights, and resizing them to other image sizes."""

import zipfile

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import keras_t2t
from keras_t2t.configs import token_grid
from keras_t2t.weights.architecture import infer_architecture
from keras_t2t.weights.names import name_map
from keras_t2t.weights.reading import read_checkpoint
from tests.conftest import SMALL_CONFIGS, mostly_slow, relative_error, seeded_parameters
from tests.reference_parameters import reference_images
from tests.torch_files import Ordered, legacy_file, zip_file

SIZE = (31, 46)


def build(config, size=SIZE, **kwargs):
    return keras_t2t.T2TViT(config, input_shape=(*size, 3), **{"classes": 7, **kwargs})


def assert_equal_weights(model, other):
    for weight, expected in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(weight, expected, err_msg=weight.path)


KERAS_SUFFIXES = (".weights.h5", ".h5", ".keras")


@pytest.fixture
def loaded(small_config):
    """Returns a model with seeded weights, and the weights by name."""
    model = build(small_config)
    parameters = seeded_parameters(small_config, SIZE, classes=7)
    keras_t2t.load_checkpoint(model, parameters)
    return model, parameters


@pytest.mark.parametrize(
    ("small_config", "suffix"),
    [
        *mostly_slow(
            [(kind, s) for kind in SMALL_CONFIGS for s in KERAS_SUFFIXES], *[("performer", s) for s in KERAS_SUFFIXES]
        ),
        *[("performer", suffix) for suffix in (".npz", ".safetensors", ".pth", ".pth.tar")],  # `test_layouts` tests their names
    ],
    indirect=["small_config"],
)
def test_formats(loaded, suffix, tmp_path):
    model, parameters = loaded
    path = tmp_path / f"model{suffix}"
    {
        ".npz": lambda: np.savez(path, **parameters),
        ".safetensors": lambda: safetensors.numpy.save_file(parameters, path),
        ".pth": lambda: path.write_bytes(zip_file(Ordered(parameters))),
        ".pth.tar": lambda: path.write_bytes(legacy_file({"state_dict_ema": Ordered(parameters)})),
        ".weights.h5": lambda: model.save_weights(path),
        ".h5": lambda: model.save(path),
        ".keras": lambda: model.save(path),
    }[suffix]()
    other = build(keras_t2t.config_of(model))
    report = keras_t2t.load_checkpoint(other, str(path))
    assert_equal_weights(other, model)
    assert report.loaded == len(model.weights)
    assert report.layout == {".weights.h5": "keras", ".keras": "keras", ".h5": "keras_model"}.get(suffix, "authors")
    assert report.entry == ("state_dict_ema" if suffix == ".pth.tar" else None)


def test_layouts(loaded):
    model, parameters = loaded
    config, positions = keras_t2t.config_of(model), model.get_layer("position_embedding").table.shape[0]
    rows = zip(name_map(config, positions), name_map(config, positions, layout="openmmlab"), strict=True)
    renamed = {openmmlab.source: parameters[authors.source] for authors, openmmlab in rows}
    other = build(config)
    report = keras_t2t.load_checkpoint(other, {"state_dict": {f"backbone.{name}": array for name, array in renamed.items()}})
    assert_equal_weights(other, model)
    assert report.layout == ("authors" if set(renamed) == set(parameters) else "openmmlab")


@pytest.mark.parametrize("dtype", ["float16", "float64", ml_dtypes.bfloat16])
def test_other_dtypes(dtype, tmp_path):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    parameters = {name: array.astype(dtype) for name, array in seeded_parameters(config, SIZE, classes=7).items()}
    (tmp_path / "model.pth").write_bytes(zip_file(parameters))
    safetensors.numpy.save_file(parameters, tmp_path / "model.safetensors")
    for file in ("model.pth", "model.safetensors"):
        model = build(config, weights=tmp_path / file)
        np.testing.assert_array_equal(model.get_layer("norm").gamma, parameters["norm.weight"].astype("float32"))


def test_the_moving_average_is_preferred():
    def state(value):
        return {"module.w": np.full(3, value, "float32")}

    entries = {"net": state(1), "model": state(2), "state_dict": state(3), "state_dict_ema": state(4)}
    for name, value in reversed([(name, state["module.w"][0]) for name, state in entries.items()]):
        checkpoint = read_checkpoint(dict(entries))
        assert (checkpoint.entry, checkpoint.arrays["w"][0]) == (name, value)
        del entries[name]
    assert read_checkpoint(state(5)).entry is None
    # Entries without weights are skipped.
    assert read_checkpoint({"state_dict_ema": {}, "state_dict": state(6)}).entry == "state_dict"
    # Entries of another type are skipped, too.
    assert read_checkpoint({"state_dict_ema": None, "model": "t2t_vit_14", "net": state(6)}).entry == "net"


def test_a_mapping_of_torch_tensors():
    class Tensor:  # what numpy sees of a tensor of PyTorch
        shape, dtype = (2,), "torch.float32"

        def __array__(self, dtype=None, copy=None):
            return np.float32([1, 2])

    np.testing.assert_array_equal(read_checkpoint({"module.backbone.w": Tensor()}).arrays["w"], [1, 2])


def test_prefixes_are_stripped_in_any_order():
    checkpoint = read_checkpoint({"backbone.module.a": np.ones(2), "module.module.b": np.ones(3), "c": np.ones(4)})
    assert list(checkpoint.arrays) == ["a", "b", "c"]
    assert checkpoint.prefixes == ("backbone.", "module.")


def test_bfloat16_models_load_their_own_files(tmp_path):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["performer"])
    model = build(config, dtype="bfloat16")
    model.save_weights(tmp_path / "model.weights.h5")
    other = build(config, dtype="bfloat16", weights=tmp_path / "model.weights.h5")
    assert_equal_weights(other, model)


def test_files_that_expand_or_refer_to_other_files_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros(10**7))
    with h5py.File(tmp_path / "bomb.weights.h5", "w") as file:
        file.create_dataset("layers/w", (2**28,), "float32", chunks=(2**20,))
    (tmp_path / "secret").write_bytes(b"secret" * 10)
    with h5py.File(tmp_path / "external.weights.h5", "w") as file:
        file.create_dataset("layers/w", (10,), "uint8", external=[(str(tmp_path / "secret"), 0, 10)])
    with h5py.File(tmp_path / "virtual.weights.h5", "w") as file:
        layout = h5py.VirtualLayout((10,), "uint8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "bomb.weights.h5"), "layers/w", (10,))
        file.create_virtual_dataset("layers/w", layout)
    with h5py.File(tmp_path / "linked.weights.h5", "w") as file:
        file["layers"] = h5py.ExternalLink(str(tmp_path / "bomb.weights.h5"), "layers")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.weights.h5", bytes(10**8))
    for name, reason in {
        "bomb.npz": "declares 80000",
        "bomb.weights.h5": "declares 1073741824 bytes",
        "bomb.keras": "declares 100000000 bytes",
        "external.weights.h5": "refers to data in other files",
        "virtual.weights.h5": "refers to data in other files",
        "linked.weights.h5": "refers to data in other files",
    }.items():
        with pytest.raises(keras_t2t.CheckpointError, match=f"Cannot read .*{name}: .*{reason}"):
            read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("content", [{}, {"epoch": 3, "args": "x"}, {"state_dict": {"a": 1}}])
def test_no_weights(content, tmp_path):
    (tmp_path / "model.pth").write_bytes(zip_file(content))
    with pytest.raises(
        keras_t2t.CheckpointError,
        match=r"no weights in .*model.pth. Expected arrays by name, at the top level or in one of the entries \('state_",
    ):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".weights.h5", ".keras"])
def test_damaged_files(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"no such thing" * 10)
    with pytest.raises(keras_t2t.CheckpointError, match=f"Cannot read .*model{suffix}: it is damaged or not a valid "):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / f"none{suffix}")


def test_npz_files_with_objects_are_refused(tmp_path):
    np.savez(tmp_path / "model.npz", w=np.array([{}], object))
    with pytest.raises(keras_t2t.CheckpointError, match="allow_pickle"):
        read_checkpoint(tmp_path / "model.npz")


def test_safetensors_is_optional(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ImportError, match=r'pip install "keras-t2t\[safetensors\]"'):
        read_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize("size", [(384, 384), (320, 256)])
@pytest.mark.parametrize("variant", ["t2t_vit_7", "vit_small_16"])
@pytest.mark.slow
def test_positions_are_resized_there_and_back(variant, size, tmp_path):
    """Loading at another image size, and back from a Keras file, resizes the positions as PyTorch does."""
    constructor = {"t2t_vit_7": keras_t2t.T2TViT7, "vit_small_16": keras_t2t.ViTSmall16}[variant]
    parameters = seeded_parameters(keras_t2t.variants.VARIANTS[variant].config, (224, 224))
    small = constructor(weights=None, input_shape=(*size, 3))
    report = keras_t2t.load_checkpoint(small, parameters)
    assert report.resized == ("pos_embed",)
    table = np.asarray(small.get_layer("position_embedding").table)
    grid = (size[0] // 16, size[1] // 16)
    assert table.shape[0] == 1 + grid[0] * grid[1]
    expected = pytorch_bicubic(parameters["pos_embed"][0, 1:].reshape(14, 14, -1), grid)
    np.testing.assert_array_equal(table[0], parameters["pos_embed"][0, 0])
    assert relative_error(table[1:].reshape(expected.shape), expected) < 1e-5
    small.save_weights(tmp_path / "small.weights.h5")
    back = constructor(weights=None)
    grid_argument = {} if size[0] == size[1] else {"position_grid": grid}
    report = keras_t2t.load_checkpoint(back, tmp_path / "small.weights.h5", **grid_argument)
    assert report.resized == ("position_embedding/vars/0",)
    returned = np.asarray(back.get_layer("position_embedding").table)[1:].reshape(14, 14, -1)
    assert relative_error(returned, pytorch_bicubic(expected, (14, 14))) < 1e-5


def pytorch_bicubic(grid, size):
    """Resizes as PyTorch does (A = -0.75, half-pixel centers, clamped edges), one axis after the other."""
    for axis in (0, 1):
        old, new, a = grid.shape[axis], size[axis], -0.75
        result = []
        for i in range(new):
            center = (i + 0.5) * old / new - 0.5
            first, row = int(np.floor(center)) - 1, 0
            for j in range(first, first + 4):
                d = abs(center - j)
                near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
                row = row + (near if d <= 1 else far) * np.take(grid, min(max(j, 0), old - 1), axis).astype("float64")
            result.append(row)
        grid = np.stack(result, axis)
    return grid


@pytest.mark.slow
def test_skip_head(tmp_path):
    config = keras_t2t.T2TConfig(**SMALL_CONFIGS["dense"])
    parameters = seeded_parameters(config, SIZE, classes=7)
    donor = build(config)
    keras_t2t.load_checkpoint(donor, parameters)
    donor.save_weights(tmp_path / "donor.weights.h5")
    for source, names in [
        (parameters, ("head.bias", "head.weight")),
        (tmp_path / "donor.weights.h5", ("fast_dense_2/vars/0", "fast_dense_2/vars/1")),
    ]:
        model = build(config, classes=3)
        head = np.asarray(model.get_layer("head").kernel)
        with pytest.raises(keras_t2t.CheckpointError, match=r"expected \(3,\), received \(7,\)"):
            keras_t2t.load_checkpoint(model, source)
        report = keras_t2t.load_checkpoint(model, source, skip_head=True)
        assert report.skipped == names
        assert str(report).endswith(f"; skipped {', '.join(names)}")
        np.testing.assert_array_equal(model.get_layer("head").kernel, head)
        x = reference_images(2, *SIZE, seed=3)
        backbones = [keras.Model(m.inputs, m.get_layer("norm").output) for m in (model, donor)]
        np.testing.assert_array_equal(backbones[0].predict(x, verbose=0), backbones[1].predict(x, verbose=0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("soft_splits", [((7, 4, 0), (3, 2, 1)), ((5, 3, 2), (3, 2, 0))])
def test_the_position_grid_of_any_soft_splits(soft_splits, channels, tmp_path):
    """The table of a model for images of any size is that of the file, whatever the padding and the number of channels."""
    config = keras_t2t.T2TConfig(soft_splits=soft_splits, token_dim=8, embed_dim=24, depth=1, num_heads=2)
    model = keras_t2t.T2TViT(config, input_shape=(71, 71, channels), include_top=False, pooling="token")
    np.savez(tmp_path / "weights.npz", **{row.source: np.zeros(row.shape) for row in name_map_of(model)})
    any_size = keras_t2t.T2TViT(config, input_shape=(None, None, channels), include_top=False, weights=tmp_path / "weights.npz")
    grids = [each.get_layer("position_embedding").grid_size for each in (any_size, model)]
    assert grids[0] == grids[1]
    fit = infer_architecture(read_checkpoint(tmp_path / "weights.npz").arrays, config)
    assert fit.position_grid == token_grid(soft_splits, *fit.image_shape[:2]) == grids[1] and fit.image_shape[2] == channels


def name_map_of(model):
    grid = model.get_layer("position_embedding").grid_size
    return name_map(keras_t2t.models.config_of(model), 1 + grid[0] * grid[1], model.input_shape[-1], None)


def test_the_case_of_a_suffix_does_not_matter(tmp_path):
    np.savez(tmp_path / "weights.npz", a=np.ones(3))
    (tmp_path / "weights.npz").rename(tmp_path / "WEIGHTS.Npz")
    assert list(read_checkpoint(tmp_path / "WEIGHTS.Npz").arrays) == ["a"]
