"""Malicious files: no code runs, nothing hangs, memory stays small, and the error is always a CheckpointError."""

import gc
import io
import os
import struct
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

import keras_t2t
from keras_t2t.weights.formats.inert_pickle import MAX_OPERATIONS
from keras_t2t.weights.formats.torch_file import read_torch_file
from keras_t2t.weights.reading import read_checkpoint
from tests.conftest import DATA
from tests.torch_files import Call, Ordered, Pickle, legacy_file, zip_file

SMALL = Ordered({"cls_token": np.ones((1, 1, 3), "float32"), "norm.weight": np.arange(3, dtype="float16")})


def archive(body, entries=(), **kwargs):
    """Returns a zip file whose pickle has the given opcodes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **kwargs) as file:
        for name, data in [("x/data.pkl", b"\x80\x02" + body), *entries]:
            file.writestr(name, data)
    return stream.getvalue()


def text(string):
    return Pickle().opcodes(string)


def tensor(shape, strides, offset=0, length=4, key="0"):
    """Returns the opcodes of a tensor with any shape, strides and storage."""
    pickle = Pickle()
    storage = pickle.opcodes(("storage", b"ctorch\nFloatStorage\n", key, "cpu", length)) + b"Q"
    return pickle.rebuild(storage, offset, shape, strides)


def read(data, path):
    """Returns the weights, or `None` after a CheckpointError, and checks that reading takes little time and memory."""
    path.write_bytes(data)
    gc.freeze()  # objects of other tests must not count in the time
    start = time.thread_time()
    weights = _read(path)
    assert time.thread_time() - start < 1
    tracemalloc.start()  # not in the first run: it makes reading several times slower
    _read(path)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + 2**26
    tracemalloc.stop()
    return weights


def _read(path):
    try:
        return read_checkpoint(path).arrays
    except keras_t2t.CheckpointError as error:
        assert path.name in str(error)
        assert len(str(error)) < 1000
        return None


CALLS = {
    "os.system": Call("os", "system", ("touch {}",)),
    "posix.system": Call("posix", "system", ("touch {}",)),
    "eval": Call("builtins", "eval", ("open({!r}, 'w')",)),
    "exec": Call("__builtin__", "exec", ("open({!r}, 'w')",)),
    "importlib": Call("importlib", "import_module", ("antigravity",)),
    "subprocess": Call("subprocess", "check_call", (["touch", "{}"],)),
    "getattr": Call("builtins", "getattr", (Call("builtins", "__import__", ("os",)), "system")),
    "open": Call("builtins", "open", ("{}", "w")),
    "torch.load": Call("torch", "load", ("{}",)),
    "state": Call("collections", "OrderedDict", (), {"__class__": Call("os", "system", ("touch {}",))}),
    "dotted": Call("torch._utils", "_rebuild_tensor_v2.__globals__", ("touch {}",)),
    "codecs": Call("_codecs", "encode", ("touch {}", "latin1")),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("writer", [legacy_file, zip_file])
def test_pickled_calls_are_not_executed(name, writer, tmp_path):
    trap, call = tmp_path / "trap", CALLS[name]
    arguments = tuple(part.format(trap) if isinstance(part, str) else part for part in call.arguments)
    malicious = Call(call.module, call.name, arguments, call.state)
    modules = set(sys.modules)
    weights = read(writer({"state_dict": SMALL, "other": malicious}), tmp_path / "model.pth")
    np.testing.assert_array_equal(weights["norm.weight"], [0, 1, 2])
    assert not trap.exists()
    assert "antigravity" not in set(sys.modules) - modules
    assert read(writer(malicious), tmp_path / "model.pth") is None
    weights = read(writer(Ordered({**SMALL, "norm.weight": malicious})), tmp_path / "model.pth")
    assert weights["norm.weight"].dtype == object
    assert not trap.exists()


def _nest(levels):
    """Returns the opcodes of nested tuples, each with the next one twice, so that a traversal visits `2**levels` leaves."""
    return b"K\x01q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(levels)) + b"0"


FILES = {
    "a call of a tensor": archive(tensor((4,), (1,)) + b")R.", [("x/data/0", b"\0" * 16)]),
    "a call of a string": archive(text("os.system") + b")R."),
    "a state for a class": archive(b"ctorch\nFloatStorage\n}" + text("x") + b"K\x01sb."),
    "a global named by containers": archive(_nest(60) + b"h\x00h\x00\x93."),
    "exponential nesting": archive(b"}" + text("a") + _nest(5000) + b"h\x00s."),
    "exponential nesting as a key": archive(b"}" + _nest(5000) + b"h\x00K\x01s."),
    "exponential nesting as a shape": archive(_nest(60) + Pickle().rebuild(b"h\x00", b"h\x00", b"h\x00", b"h\x00") + b"."),
    "deep nesting": archive(b"]" * 90_001 + b"a" * 90_000 + b"."),
    "deep tuples as a key": archive(b"})" + b"\x85" * 90_000 + b"K\x01s."),
    "a set of deep tuples": archive(b"(" + b")" + b"\x85" * 90_000 + b"\x91."),
    "keys with one hash": archive(
        b"}(" + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(70_000)) + b"u."
    ),
    "a memo of 4 billion": archive(b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff."),
    "an unknown memo index": archive(b"h\x07."),
    "copies of a memo": archive(b"]q\x00(" + b"N" * 10_000 + b"e" + b"(" + b"h\x00" * 100_000 + b"l."),
    "many dictionaries from one list of pairs": archive(
        b"](" + b"NN\x86" * 30_000 + b"eq\x00" + b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 30_000 + b"."
    ),
    "a string of 4 GB": archive(b"X\xff\xff\xff\xffabc."),
    "bytes of 16 EB": archive(b"\x8e" + b"\xff" * 7 + b"\x7fabc."),
    "an integer of 2 GB": archive(b"\x8b\xff\xff\xff\x7fabc."),
    "a decimal of 100,000 digits": archive(b"I" + b"9" * 100_000 + b"\n."),
    "a frame of 16 EB": archive(b"\x95" + b"\xff" * 7 + b"\x7fN."),
    "no stop": archive(b"N"),
    "an empty stack": archive(b"."),
    "a missing mark": archive(b"Nt."),
    "an extension code": archive(b"\x82\x01."),
    "an out-of-band buffer": archive(b"\x97."),
    "a huge shape": archive(tensor((2**62, 2**62), (0, 0)) + b".", [("x/data/0", b"\0" * 16)]),
    "a huge shape with stride 0": archive(tensor((2**40,), (0,)) + b".", [("x/data/0", b"\0" * 16)]),
    "a shape of lists": archive(tensor((2**30, [1, 2]), (1, 1)) + b".", [("x/data/0", b"\0" * 16)]),
    "a shape of strings": archive(tensor(("1" * 9, "2"), (1, 1)) + b".", [("x/data/0", b"\0" * 16)]),
    "a shape of rank 10,000": archive(tensor((1,) * 10_000, (1,) * 10_000) + b".", [("x/data/0", b"\0" * 16)]),
    "a negative shape": archive(tensor((-1,), (1,)) + b".", [("x/data/0", b"\0" * 16)]),
    "fewer strides than sizes": archive(tensor((2, 2), (1,)) + b".", [("x/data/0", b"\0" * 16)]),
    "a stride beyond the storage": archive(tensor((4,), (2,)) + b".", [("x/data/0", b"\0" * 16)]),
    "a negative stride": archive(tensor((4,), (-1,)) + b".", [("x/data/0", b"\0" * 16)]),
    "an offset beyond the storage": archive(tensor((4,), (1,), offset=1) + b".", [("x/data/0", b"\0" * 16)]),
    "a negative offset": archive(tensor((1,), (1,), offset=-1) + b".", [("x/data/0", b"\0" * 16)]),
    "an offset that overflows": archive(tensor((1,), (1,), offset=2**63 - 1) + b".", [("x/data/0", b"\0" * 16)]),
    "a storage longer than its entry": archive(tensor((4,), (1,), length=2**40) + b".", [("x/data/0", b"\0" * 16)]),
    "a storage with a negative length": archive(tensor((0,), (1,), length=-4) + b".", [("x/data/0", b"\0" * 16)]),
    "a missing storage": archive(tensor((4,), (1,)) + b"."),
    "a storage outside the archive": archive(tensor((4,), (1,), key="../../../etc/passwd") + b"."),
    "an absolute path as a key": archive(tensor((4,), (1,), key="/etc/passwd") + b"."),
    "two pickles": archive(b"N.", [("y/data.pkl", b"\x80\x02N.")]),
    "no pickle": zip_file({}).replace(b"data.pkl", b"data.pkI"),
    "a zip bomb": archive(b"N.", [("x/data/0", b"\0" * 2**24)], compression=zipfile.ZIP_DEFLATED),
    "a compressed pickle": archive(b"N" * 50 + b".", compression=zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("name", FILES)
def test_malicious_files_are_refused(name, tmp_path):
    assert read(FILES[name], tmp_path / "model.pth") is None


def test_the_number_of_operations_is_limited(tmp_path):
    """The file is valid, except that it pushes and pops an object too often."""

    def padded(count):
        return archive(b"N0" * count + b"}" + text("a") + tensor((4,), (1,)) + b"s.", [("x/data/0", b"\0" * 16)])

    np.testing.assert_array_equal(read(padded(9), tmp_path / "model.pth")["a"], np.zeros(4))
    assert read(padded(MAX_OPERATIONS // 2), tmp_path / "model.pth") is None


def _overlapping(count, size):
    """Returns a zip file whose directory lists one entry many times."""
    data = bytearray(archive(b"N.", [("x/data/0", b"\0" * size)]))
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<I", data, end + 16)[0]
    entry = bytes(data[data.rindex(b"PK\x01\x02") : end])
    copies = b"".join(entry.replace(b"x/data/0", f"x/{i:06d}".encode()) for i in range(count))
    struct.pack_into("<HHI", data, end + 8, min(count, 0xFFFF), min(count, 0xFFFF), end - start + len(copies))
    return bytes(data[:end] + copies + data[end:])


@pytest.mark.parametrize(("count", "size"), [(1000, 10**6), (60_000, 0)])
def test_overlapping_entries_and_huge_directories_are_refused(count, size, tmp_path):
    assert read(_overlapping(count, size), tmp_path / "model.pth") is None


@pytest.mark.parametrize("name", ["../../trap", "/tmp/trap", "x/../../trap", "C:\\trap", "x/\0trap"])
def test_names_of_zip_entries_are_not_used_as_paths(name, tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    body = b"}" + text("w") + tensor((4,), (1,)) + b"s."
    weights = read(archive(body, [("x/data/0", b"\0" * 16), (name, b"trap")]), folder / "model.pth")
    np.testing.assert_array_equal(weights["w"], np.zeros(4))
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "model.pth"]


def test_wrong_lengths_and_keys_of_legacy_storages_are_refused(tmp_path):
    data = legacy_file({"w": np.arange(4, dtype="float32")})
    for length in (-4, 3, 5, 2**62):
        changed = data[:-24] + struct.pack("<q", length) + data[-16:]
        assert read(changed, tmp_path / "model.pth") is None
    assert read(data[:-1], tmp_path / "model.pth") is None
    order = Pickle().dumps(["0"])
    for keys in (["1"], ["0", "0"], [], [("0",)], "0" * 10, 7):
        assert read(data.replace(order, Pickle().dumps(keys)), tmp_path / "model.pth") is None, keys


def test_duplicate_weights_are_refused(tmp_path):
    with pytest.raises(keras_t2t.CheckpointError, match=r"The weight norm\.weight is in .* twice, with and without a prefix"):
        (tmp_path / "model.pth").write_bytes(zip_file({**SMALL, "module.norm.weight": SMALL["norm.weight"]}))
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("file", ["t2t_tiny_ema_legacy.pth.tar", "t2t_tiny_training_zip.pth.tar"])
def test_truncated_files_are_refused(file, tmp_path):
    data = (DATA / "checkpoints" / file).read_bytes()
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    for length in reversed(range(0, len(data), 1000)):
        os.truncate(path, length)
        with pytest.raises(keras_t2t.CheckpointError):
            read_torch_file(path)
