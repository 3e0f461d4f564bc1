"""Writing files like those of `torch.save`, in both formats and with any pickle in them, without PyTorch."""

import dataclasses
import io
import struct
import zipfile

import ml_dtypes
import numpy as np

STORAGES = {
    np.dtype("float64"): "DoubleStorage",
    np.dtype("float32"): "FloatStorage",
    np.dtype("float16"): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype("int64"): "LongStorage",
    np.dtype("int32"): "IntStorage",
    np.dtype("int16"): "ShortStorage",
    np.dtype("int8"): "CharStorage",
    np.dtype("uint8"): "ByteStorage",
    np.dtype("bool"): "BoolStorage",
}


@dataclasses.dataclass
class Call:
    """A pickled call of `module.name`, and the state that is set on the result."""

    module: str
    name: str
    arguments: tuple = ()
    state: object = None


class Ordered(dict):
    """A dictionary that is written as an `OrderedDict`."""


class Pickle:
    """Converts objects to opcodes of protocol 2, and collects the arrays outside the pickle in `storages`."""

    def __init__(self, device="cuda:0", legacy=False):
        self.device, self.legacy = device, legacy
        self.storages = {}

    def dumps(self, content, protocol=2):
        return b"\x80" + bytes([protocol]) + self.opcodes(content) + b"."

    def opcodes(self, content):
        match content:
            case None | True | False:
                return {None: b"N", True: b"\x88", False: b"\x89"}[content]
            case bytes():  # these are opcodes already
                return content
            case str():
                text = content.encode()
                return b"X" + struct.pack("<I", len(text)) + text
            case int():
                if 0 <= content < 256:
                    return b"K" + bytes([content])
                number = content.to_bytes(content.bit_length() // 8 + 1, "little", signed=True)
                return b"\x8a" + bytes([len(number)]) + number
            case float():
                return b"G" + struct.pack(">d", content)
            case np.ndarray():
                return self.tensor(content)
            case tuple():
                return b"(" + b"".join(map(self.opcodes, content)) + b"t"
            case list():
                return b"](" + b"".join(map(self.opcodes, content)) + b"e"
            case dict():
                start = self.opcodes(Call("collections", "OrderedDict")) if isinstance(content, Ordered) else b"}"
                pairs = [self.opcodes(part) for pair in content.items() for part in pair]
                return start + b"(" + b"".join(pairs) + b"u"
            case Call(module, name, arguments, state):
                call = f"c{module}\n{name}\n".encode() + self.opcodes(arguments) + b"R"
                return call if state is None else call + self.opcodes(state) + b"b"
        raise TypeError(type(content))

    def tensor(self, array):
        base = array if array.base is None else array.base  # views share their storage
        assert base.flags.c_contiguous
        key = str(self.storages.setdefault(id(base), (len(self.storages), base))[0])
        offset = (array.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // base.itemsize
        strides = tuple(stride // base.itemsize for stride in array.strides)
        kind = f"ctorch\n{STORAGES[base.dtype]}\n".encode()
        views = (None,) if self.legacy else ()
        storage = self.opcodes(("storage", kind, key, self.device, base.size, *views)) + b"Q"
        return self.rebuild(storage, offset, array.shape, strides)

    def rebuild(self, storage, offset, shape, strides):
        arguments = (storage, offset, shape, strides, False, Ordered())
        return self.opcodes(Call("torch._utils", "_rebuild_tensor_v2", arguments))


def legacy_file(content, device="cuda:0"):
    """Returns the bytes of a file in the legacy format."""
    pickle, plain = Pickle(device, legacy=True), Pickle()
    body = pickle.dumps(content)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    header = b"".join(plain.dumps(part) for part in (0x1950A86A20F9469CFC6C, 1001, system))
    storages = b"".join(struct.pack("<q", array.size) + array.tobytes() for _, array in pickle.storages.values())
    return header + body + plain.dumps([str(key) for key, _ in pickle.storages.values()]) + storages


def zip_file(content, device="cpu", name="archive", compression=zipfile.ZIP_STORED):
    """Returns the bytes of a file in the zip format."""
    pickle, stream = Pickle(device), io.BytesIO()
    body = pickle.dumps(content)
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr(f"{name}/data.pkl", body)
        archive.writestr(f"{name}/byteorder", "little")
        for key, array in pickle.storages.values():
            archive.writestr(f"{name}/data/{key}", array.tobytes())
        archive.writestr(f"{name}/version", "3\n")
    return stream.getvalue()
