"""Reading files saved by `torch.save`, without PyTorch and without executing code in the file.

There are two formats. The legacy format (PyTorch before 1.6, and the published T2T-ViT files) is a sequence of pickles followed
by the raw storages. The current format is a zip archive. Both are described in PyTorch's `torch/serialization.py`.
"""

import dataclasses
import io
import math
import os
import pathlib
import struct
import zipfile
import zlib
from typing import Any

import ml_dtypes
import numpy as np

from keras_t2t.errors import CheckpointError
from keras_t2t.weights.formats.inert_pickle import Global, InertPickle, Record

LEGACY_START = b"\x80"  # first byte of a pickle
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
ZIP_START = b"PK\x03\x04"
ZIP_DIRECTORY_ENTRY = b"PK\x01\x02"
MAX_RANK = 64  # limit of numpy
# Far more than in any training state. `zipfile` parses all entries when it opens an archive, which takes microseconds each.
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


def read_torch_file(path: str | os.PathLike) -> Any:
    """Reads a file saved by `torch.save`, such as a state dict or a whole training state.

    No code in the file is executed, and no other file is opened. The file is held in memory only once, and the tensors are
    views of it.

    Args:
        path: Path of the file, in the legacy or the zip format, saved from any device.

    Returns:
        The saved object. Tensors are read-only numpy arrays (float64, float32, float16, bfloat16, integer, boolean or complex).
        Plain containers stay as they are, except that an `OrderedDict` becomes a dict, and a set becomes a list. Anything else
        is an inert `Record` or `Global`.

    Raises:
        CheckpointError: If the file is in neither format, is damaged, or declares more data than it contains.
        OSError: If the file cannot be opened.
    """
    data = pathlib.Path(path).read_bytes()
    readers = {LEGACY_START: _read_legacy, ZIP_START: _read_zip}
    reader = next((reader for start, reader in readers.items() if data.startswith(start)), None)
    if reader is None:
        raise CheckpointError(
            f"Cannot read {path}: it was not saved by torch.save. For other formats, the file name must end in .safetensors, "
            ".npz, .weights.h5 or .keras."
        )
    try:
        return reader(data)
    except Exception as error:  # a damaged or hostile file can make a decoder raise anything
        raise CheckpointError(
            f"Cannot read {path}: the file is damaged or was not saved by torch.save ({str(error)[:200]}). Save or download it "
            "again."
        ) from error


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    """The numbers of one or more tensors, stored outside the pickle."""

    dtype: np.dtype
    buffer: memoryview

    def tensor(self, offset: int, shape: tuple, strides: tuple) -> np.ndarray:
        """Returns a view of the storage. Offset and strides are in elements. NumPy checks that the view fits in the buffer."""
        size = self.dtype.itemsize
        if len(shape) > MAX_RANK or not all(isinstance(n, int) and 0 <= n < 2**63 for n in (offset, *shape, *strides)):
            raise ValueError("a tensor has an invalid shape")
        if math.prod(shape) * size > len(self.buffer):
            raise ValueError(f"a tensor of shape {shape} does not fit a storage of {len(self.buffer) // size} numbers")
        return np.ndarray(shape, self.dtype, self.buffer, offset * size, [stride * size for stride in strides])


def _parse_storage(identifier):
    """Returns `(key, dtype, length)` of the storage that a pickle refers to. The device does not matter."""
    match identifier:
        case ("storage", Global("torch" | "torch.cuda", kind), str(key), _, int(length), *rest) if rest in ([], [None]):
            if kind not in DTYPES or length < 0:
                raise ValueError(f"a storage has type {kind} and length {length}")
            return key, DTYPES[kind], length
    raise ValueError("a pickle refers to something other than a storage")


def _rebuild(function, arguments):
    """Returns the tensor or dictionary that a pickled PyTorch call creates, or a `Record` for any other call."""
    match function, arguments:
        case Global("collections", "OrderedDict"), ():
            return {}
        case Global("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"), (_Storage() as storage, *view):
            try:
                return storage.tensor(*view[:3])
            except ValueError:  # not an error unless the tensor is one of the weights
                return Record(function, view)
        case Global("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), (np.ndarray() as data, *_):
            return data
    return Record(function, arguments)


def _read_legacy(data):
    """Reads pickles of a magic number, a version, system information, the object and the storage keys, then the storages."""
    stream = io.BytesIO(data)
    header = InertPickle(stream)
    if header.load() != LEGACY_MAGIC or header.load() != LEGACY_PROTOCOL:
        raise ValueError("it is a pickle, but not in the legacy format")
    if header.load()["little_endian"] is not True:
        raise ValueError("it was written on a big-endian machine")
    start = stream.tell()
    declared: dict[str, tuple[np.dtype, int]] = {}
    storages: dict[str, _Storage] = {}

    def declare(identifier):
        key, dtype, length = _parse_storage(identifier)
        if declared.setdefault(key, (dtype, length)) != (dtype, length):
            raise ValueError(f"storage {key!r} is declared twice, with different types or lengths")

    # The object comes before the storages, so a first pass only collects their types and lengths.
    InertPickle(stream, declare).load()
    order, position = InertPickle(stream).load(), stream.tell()
    for key in map(_require_string, order):
        dtype, length = declared[key]
        if struct.unpack_from("<q", data, position) != (length,):
            raise ValueError(f"storage {key!r} does not have its declared length of {length}")
        storages[key] = _slice(data, position + 8, dtype, length)
        position += 8 + len(storages[key].buffer)
    stream.seek(start)
    return InertPickle(stream, lambda identifier: storages[_parse_storage(identifier)[0]], _rebuild).load()


def _read_zip(data):
    """Reads an archive with a pickle of the object, `NAME/data.pkl`, and an entry for each storage, `NAME/data/KEY`."""
    if data.count(ZIP_DIRECTORY_ENTRY) > MAX_ZIP_ENTRIES:
        raise ValueError(f"it has more than {MAX_ZIP_ENTRIES} entries")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    if sum(info.file_size for info in entries.values()) > len(data):
        raise ValueError("its entries are larger than the file, but torch.save neither compresses nor overlaps them")
    (name,) = (name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1)
    folder, storages = name.removesuffix("data.pkl"), {}
    if f"{folder}byteorder" in entries and _entry(data, entries[f"{folder}byteorder"]) != b"little":
        raise ValueError("it was written on a big-endian machine")

    def storage(identifier):
        key, dtype, length = _parse_storage(identifier)
        if key not in storages:
            storages[key] = _entry(data, entries[f"{folder}data/{key}"])
        return _slice(storages[key], 0, dtype, length)

    return InertPickle(io.BytesIO(_entry(data, entries[name])), storage, _rebuild).load()


def _entry(data, info):
    """Returns the bytes of an uncompressed entry, after checking its checksum."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f"{info.filename} is compressed or encrypted")
    signature, name_length, extra_length = struct.unpack_from("<4s22xHH", data, info.header_offset)
    start = info.header_offset + 30 + name_length + extra_length
    entry = memoryview(data)[start : start + info.file_size]
    if signature != ZIP_START or zlib.crc32(entry) != info.CRC:
        raise ValueError(f"the checksum of {info.filename} does not match")
    return entry


def _require_string(value):
    if not isinstance(value, str):
        raise ValueError("the key of a storage is not a string")
    return value


def _slice(data, start, dtype, length):
    buffer = memoryview(data)[start : start + length * dtype.itemsize]
    if len(buffer) != length * dtype.itemsize:
        raise ValueError("a storage extends beyond its place in the file")
    return _Storage(dtype, buffer)
