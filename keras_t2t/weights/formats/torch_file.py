"""Reading files of `torch.save` without PyTorch and without running what is in them.

Both formats are read: the legacy one (PyTorch before 1.6; that of the published T2T-ViT files), a row of pickles followed by
the raw storages, and the zip archive of today. The facts about them are those of PyTorch's `torch/serialization.py`.
"""

import dataclasses
import io
import math
import pathlib
import struct
import zipfile
import zlib
from typing import Any

import ml_dtypes
import numpy as np

from keras_t2t.errors import CheckpointError
from keras_t2t.weights.formats.inert_pickle import Global, InertPickle, Record

LEGACY_START = b"\x80"  # a pickle
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
ZIP_START = b"PK\x03\x04"
ZIP_DIRECTORY_ENTRY = b"PK\x01\x02"
MAX_RANK = 64  # of numpy's arrays
# Many times what a training state has; zipfile takes microseconds for each entry before one can look at any.
MAX_ZIP_ENTRIES = 20_000
DTYPES = {
    "DoubleStorage": np.dtype("float64"),
    "FloatStorage": np.dtype("float32"),
    "HalfStorage": np.dtype("float16"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("int64"),
    "IntStorage": np.dtype("int32"),
    "ShortStorage": np.dtype("int16"),
    "CharStorage": np.dtype("int8"),
    "ByteStorage": np.dtype("uint8"),
    "BoolStorage": np.dtype("bool"),
    "ComplexFloatStorage": np.dtype("complex64"),
    "ComplexDoubleStorage": np.dtype("complex128"),
}


def read_torch_file(path) -> Any:
    """Reads a file of `torch.save`: a state dict, a whole training state, or whatever else was saved.

    Nothing in the file is run and no other file is opened. Tensors are views of the file's bytes, which are in memory once.

    Args:
        path: the file, in the legacy or the zip format, saved from any device.

    Returns:
        What was saved, with tensors as read-only numpy arrays (float64, float32, float16, bfloat16, integers or booleans),
        plain containers as they are (an `OrderedDict` as a dict, a set as a list), and anything else as an inert `Record` or
        `Global`.

    Raises:
        CheckpointError: if the file is of neither format, damaged, or declares more than it holds.
        OSError: if the file cannot be opened.
    """
    data = pathlib.Path(path).read_bytes()
    readers = {LEGACY_START: _read_legacy, ZIP_START: _read_zip}
    reader = next((reader for start, reader in readers.items() if data.startswith(start)), None)
    if reader is None:
        raise CheckpointError(f"Cannot read {path}: expected a file of torch.save, in its legacy or its zip format")
    try:
        return reader(data)
    except Exception as error:  # a damaged or hostile file can make a decoder raise anything
        reason = str(error)[:200]
        raise CheckpointError(f"Cannot read {path}: the file is damaged, or was not made by torch.save ({reason})") from error


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    """A row of numbers, kept outside the pickle."""

    dtype: np.dtype
    buffer: memoryview

    def tensor(self, offset, shape, strides) -> np.ndarray:
        """A view of the storage; offset and strides are in elements. numpy checks that it stays within the buffer."""
        size = self.dtype.itemsize
        if len(shape) > MAX_RANK or not all(isinstance(n, int) and 0 <= n < 2**63 for n in (offset, *shape, *strides)):
            raise ValueError("a tensor without a proper shape")
        if math.prod(shape) * size > len(self.buffer):
            raise ValueError(f"a tensor of shape {shape} in a storage of {len(self.buffer) // size} numbers")
        return np.ndarray(shape, self.dtype, self.buffer, offset * size, [stride * size for stride in strides])


def _storage_of(identifier) -> tuple[str, np.dtype, int]:
    """The key, type and length of the storage that a pickle refers to; whatever device it was on."""
    match identifier:
        case ("storage", Global("torch" | "torch.cuda", kind), str(key), _, int(length), *rest) if rest in ([], [None]):
            if kind not in DTYPES or length < 0:
                raise ValueError(f"a storage of type {kind} and {length} numbers")
            return key, DTYPES[kind], length
    raise ValueError("a reference to something other than a storage")


def _rebuild(function, arguments):
    """Tensors and dictionaries from the calls that PyTorch writes for them; a record of any other call."""
    match function, arguments:
        case Global("collections", "OrderedDict"), ():
            return {}
        case Global("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"), (_Storage() as storage, *view):
            try:
                return storage.tensor(*view[:3])
            except ValueError:  # matters only if it is one of the weights
                return Record(function, view)
        case Global("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), (np.ndarray() as data, *_):
            return data
    return Record(function, arguments)


def _read_legacy(data):
    """Pickles of a magic number, a version, facts of the machine, what was saved, and the order of the storages; then those."""
    stream = io.BytesIO(data)
    header = InertPickle(stream)
    if header.load() != LEGACY_MAGIC or header.load() != LEGACY_PROTOCOL:
        raise ValueError("a pickle, but not of the legacy format")
    if header.load()["little_endian"] is not True:
        raise ValueError("written on a big-endian machine")
    start, declared, storages = stream.tell(), {}, {}

    def declare(identifier):
        key, dtype, length = _storage_of(identifier)
        if declared.setdefault(key, (dtype, length)) != (dtype, length):
            raise ValueError(f"storage {key!r} is declared twice, in two ways")

    first_pass = InertPickle(stream, declare)
    first_pass.load()
    order, position = InertPickle(stream).load(), stream.tell()
    for key in map(_string, order):
        dtype, length = declared[key]
        if struct.unpack_from("<q", data, position) != (length,):
            raise ValueError(f"storage {key!r} does not have the {length} numbers it is declared with")
        storages[key] = _slice(data, position + 8, dtype, length)
        position += 8 + len(storages[key].buffer)
    stream.seek(start)
    return InertPickle(stream, lambda identifier: storages[_storage_of(identifier)[0]], _rebuild).load()


def _read_zip(data):
    """An archive with a pickle of what was saved, `NAME/data.pkl`, and an entry `NAME/data/KEY` for each storage."""
    if data.count(ZIP_DIRECTORY_ENTRY) > MAX_ZIP_ENTRIES:
        raise ValueError(f"more than {MAX_ZIP_ENTRIES} entries")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    if sum(info.file_size for info in entries.values()) > len(data):
        raise ValueError("its entries are larger than the file: torch.save neither compresses nor overlaps them")
    (name,) = (name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1)
    folder, storages = name.removesuffix("data.pkl"), {}
    if f"{folder}byteorder" in entries and _entry(data, entries[f"{folder}byteorder"]) != b"little":
        raise ValueError("written on a big-endian machine")

    def storage(identifier):
        key, dtype, length = _storage_of(identifier)
        if key not in storages:
            storages[key] = _entry(data, entries[f"{folder}data/{key}"])
        return _slice(storages[key], 0, dtype, length)

    return InertPickle(io.BytesIO(_entry(data, entries[name])), storage, _rebuild).load()


def _entry(data, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of an uncompressed entry, held to their checksum."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"{info.filename} is compressed or encrypted")
    signature, name_length, extra_length = struct.unpack_from("<4s22xHH", data, info.header_offset)
    start = info.header_offset + 30 + name_length + extra_length
    entry = memoryview(data)[start : start + info.file_size]
    if signature != ZIP_START or zlib.crc32(entry) != info.CRC:
        raise ValueError(f"the checksum of {info.filename} is wrong")
    return entry


def _string(value) -> str:
    if not isinstance(value, str):
        raise ValueError("a storage whose key is no string")
    return value


def _slice(data, start, dtype, length) -> _Storage:
    buffer = memoryview(data)[start : start + length * dtype.itemsize]
    if len(buffer) != length * dtype.itemsize:
        raise ValueError("a storage reaches beyond its place in the file")
    return _Storage(dtype, buffer)
