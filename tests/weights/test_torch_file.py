"""Reading files of `torch.save` without PyTorch: values, dtypes, views, and inert records of everything else."""

import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

import keras_t2t
from keras_t2t.weights.formats.inert_pickle import Global, Record
from keras_t2t.weights.formats.torch_file import read_torch_file
from tests.torch_files import STORAGES, Call, Ordered, Pickle, legacy_file, zip_file

WRITERS = {"legacy": legacy_file, "zip": zip_file}


@pytest.fixture(params=WRITERS)
def round_trip(request, tmp_path):
    def write_and_read(content, **kwargs):
        path = tmp_path / f"model{len(list(tmp_path.iterdir()))}.pth"
        path.write_bytes(WRITERS[request.param](content, **kwargs))
        return read_torch_file(path)

    return write_and_read


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "cuda:7", "mps", "xla:1", "unknown-device"])
def test_values_and_names_from_any_device(round_trip, device):
    content = Ordered(weight=np.arange(35, dtype="float32").reshape(5, 7), bias=np.float32([np.nan, -0.0, np.inf]))
    read = round_trip({"state_dict_ema": content, "epoch": 309}, device=device)
    assert list(read) == ["state_dict_ema", "epoch"]
    assert list(read["state_dict_ema"]) == ["weight", "bias"]
    np.testing.assert_array_equal(read["state_dict_ema"]["weight"], content["weight"])
    assert read["state_dict_ema"]["bias"].tobytes() == content["bias"].tobytes()
    assert not read["state_dict_ema"]["weight"].flags.writeable


@pytest.mark.parametrize("dtype", STORAGES, ids=str)
def test_dtypes(round_trip, dtype):
    array = (np.random.default_rng(3).standard_normal((3, 5)) * 100).astype(dtype)
    read = round_trip({"w": array})["w"]
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)


def test_views_share_their_storage(round_trip):
    base = np.arange(60, dtype="float64").reshape(3, 4, 5)
    views = {"transposed": base.transpose(2, 0, 1), "row": base[1], "strided": base[:, 1:4:2, ::3], "all": base}
    read = round_trip(views)
    for name, view in views.items():
        np.testing.assert_array_equal(read[name], view)
        assert np.shares_memory(read[name], read["all"])


def test_shapes_of_every_rank(round_trip):
    arrays = {str(shape): np.ones(shape, "float32") for shape in [(), (0,), (1,), (3, 0, 2), (2, 1, 3, 1, 2)]}
    assert {name: array.shape for name, array in round_trip(arrays).items()} == {n: a.shape for n, a in arrays.items()}


def test_a_training_state_is_inert(round_trip):
    options = Call("argparse", "Namespace", (), {"lr": 5e-4, "model": "t2t_vit_14", "amp": True})
    scalar = Call("numpy.core.multiarray", "scalar", (Call("numpy", "dtype", ("f8", False, True)), "8 bytes"))
    parameter = Call("torch._utils", "_rebuild_parameter", (np.ones(3, "float32"), True, Ordered()))
    optimizer = {
        "state": {0: {"step": 7, "exp_avg": np.zeros(2, "float32")}},
        "param_groups": [{"params": [0], "betas": (0.9, -1)}],
    }
    read = round_trip(
        {"args": options, "best": scalar, "parameter": parameter, "optimizer": optimizer, "big": 2**40, "no": None}
    )
    assert isinstance(read["args"], Record)
    assert read["args"].function == Global("argparse", "Namespace")
    assert read["args"].state == {"lr": 5e-4, "model": "t2t_vit_14", "amp": True}
    assert read["best"].arguments[1] == "8 bytes"
    np.testing.assert_array_equal(read["parameter"], [1, 1, 1])
    assert read["optimizer"]["param_groups"] == [{"params": [0], "betas": (0.9, -1)}]
    assert read["optimizer"]["state"][0]["step"] == 7
    assert (read["big"], read["no"]) == (2**40, None)


def test_pickles_of_every_protocol(tmp_path):
    import collections
    import pickle

    content = {"a": [1, 2.5, "x" * 300, b"y" * 300], "b": ({1, 2}, frozenset([3]), 10**30, -5), "c": bytearray(b"z"), 4: True}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        stream = pickle.dumps((content, collections.OrderedDict), protocol)
        path = tmp_path / f"{protocol}.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", stream)
        read, function = read_torch_file(path)
        assert read["a"][:3] == content["a"][:3]
        assert read["a"][3] == content["a"][3] or protocol < 3  # older protocols write bytes as a call
        assert read["b"][2:] == content["b"][2:]
        assert read[4] is True
        assert function == Global("collections", "OrderedDict")


@pytest.mark.parametrize("writer", WRITERS)
def test_reading_takes_little_more_memory_than_the_file(writer, tmp_path):
    data = WRITERS[writer](Ordered({str(i): np.full((300, 300), i, "float32") for i in range(30)}))
    (tmp_path / "model.pth").write_bytes(data)
    tracemalloc.start()
    read_torch_file(tmp_path / "model.pth")
    assert tracemalloc.get_traced_memory()[1] < 1.1 * len(data)
    tracemalloc.stop()


@pytest.mark.parametrize(
    "start, message",
    [
        (b"", "it was not saved by torch.save"),
        (b"\x89PNG\r\n", "it was not saved by torch.save. For other formats"),
        (b"PK\x03\x04", "the file is damaged or was not saved by torch.save"),
    ],
)
def test_other_files_are_refused(tmp_path, start, message):
    path = tmp_path / "other.pth"
    path.write_bytes(start)
    with pytest.raises(keras_t2t.CheckpointError, match=f"Cannot read .*other.pth: .*{message}"):
        read_torch_file(path)


def test_a_missing_file_raises_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        read_torch_file(tmp_path / "none.pth")


def test_big_endian_files_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(zip_file({"w": np.ones(2, "float32")}).replace(b"little", b"notbig"))
    with pytest.raises(keras_t2t.CheckpointError, match="checksum of archive/byteorder does not match"):
        read_torch_file(path)
    big = Pickle().dumps({"little_endian": False})
    path.write_bytes(Pickle().dumps(0x1950A86A20F9469CFC6C) + Pickle().dumps(1001) + big)
    with pytest.raises(keras_t2t.CheckpointError, match="big-endian"):
        read_torch_file(path)


def test_a_flipped_bit_in_a_zip_file_is_detected(tmp_path):
    weights = np.arange(16, dtype="float32")
    data = bytearray(zip_file({"w": weights}))
    data[data.index(weights.tobytes()) + 5] ^= 4
    (tmp_path / "model.pth").write_bytes(data)
    with pytest.raises(keras_t2t.CheckpointError, match="checksum of archive/data/0 does not match"):
        read_torch_file(tmp_path / "model.pth")


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    bits = struct.unpack("<I", struct.pack("<f", -1.5))[0] >> 16
    (tmp_path / "model.pth").write_bytes(legacy_file({"w": np.array([bits], "uint16").view(ml_dtypes.bfloat16).copy()}))
    assert read_torch_file(tmp_path / "model.pth")["w"].astype("float32")[0] == -1.5
