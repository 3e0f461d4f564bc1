"""The whole road from a published file on a server to a model, and everything that can go wrong on it."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import pathlib
import resource
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import keras_t2t
from keras_t2t.configs import VARIANTS
from keras_t2t.weights import pretrained, registry
from keras_t2t.weights.names import name_map
from tests.conftest import DATA, relative_error, seeded_parameters
from tests.torch_files import Ordered, legacy_file


class Server(http.server.ThreadingHTTPServer):
    """Serves the bytes in `files`. `faults` says what goes wrong with the next requests, one after the other."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests = {}, [], []
        self.url = f"http://127.0.0.1:{self.server_port}/mirror"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/mirror/")
        self.server.requests.append(name)
        fault = self.server.faults.pop(0) if self.server.faults else None
        if name not in self.server.files or fault == "404":
            self.send_error(404)
            return
        data = self.server.files[name]
        self.send_response(200)
        if fault == "a length in words":
            self.send_header("Content-Length", "many")
        elif fault != "cut short without a length":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if fault is None else data[: len(data) // 3])
        if fault == "stalled":
            time.sleep(3)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, server):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_T2T_WEIGHTS_URL", server.url)
    return tmp_path / "home" / "models" / "keras_t2t"


@pytest.fixture(scope="module")
def published():
    """The file of T2T-ViT-7 as it was published, with seeded weights, and the weights."""
    parameters = seeded_parameters(VARIANTS["t2t_vit_7"].config, (224, 224))
    return legacy_file({"state_dict_ema": Ordered(parameters)}), parameters


@pytest.fixture
def file(server, published):
    server.files["71.7_T2T_ViT_7.pth.tar"] = published[0]
    return "71.7_T2T_ViT_7.pth.tar"


def with_digest(monkeypatch, name, data, variant="t2t_vit_7"):
    """Enters size and digest of a file into the registry."""
    changes = {"size": len(data), "digest": f"sha384:{hashlib.sha384(data).hexdigest()}"}
    changed = [
        dataclasses.replace(source, **changes) if (source.variant, source.name) == (variant, name) else source
        for source in registry.PUBLISHED_WEIGHTS
    ]
    monkeypatch.setattr(registry, "PUBLISHED_WEIGHTS", tuple(changed))


def assert_loaded(model, parameters):
    np.testing.assert_array_equal(model.get_layer("norm").gamma, parameters["norm.weight"])
    np.testing.assert_array_equal(model.get_layer("head").kernel, parameters["head.weight"].T)
    np.testing.assert_array_equal(model.get_layer("position_embedding").table, parameters["pos_embed"][0])


def names(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def test_imagenet_weights_of_full_size(server, cache, monkeypatch, capfd):
    reference = np.load(DATA / "reference" / "t2t_vit_14.npz")
    shapes = {str(name): json.loads(str(shape)) for name, shape in zip(reference["names"], reference["shapes"], strict=True)}
    parameters = seeded_parameters(VARIANTS["t2t_vit_14"].config, (224, 224), seed=int(reference["seed"]))
    data = legacy_file({"state_dict_ema": Ordered({name: parameters[name].reshape(shape) for name, shape in shapes.items()})})
    assert abs(len(data) - 86_212_823) < 10_000
    server.files["81.5_T2T_ViT_14.pth.tar"] = data
    with_digest(monkeypatch, "imagenet", data, "t2t_vit_14")

    model = keras_t2t.T2TViT14(weights="imagenet")
    assert "100%" in capfd.readouterr().err  # the progress bar
    assert names(cache) == ["81.5_T2T_ViT_14.pth.tar"]
    assert keras_t2t.labels_of(model)[:2] == ("tench", "goldfish")

    server.server_close()  # the second start reads the cache
    second = keras_t2t.T2TViT14(include_preprocessing=False, classifier_activation=None)
    for weight, expected in zip(second.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    from tests.reference_parameters import reference_images

    logits = second.predict(reference_images(2, 224, 224, int(reference["seed"])), verbose=0)
    assert relative_error(logits, reference["logits"]) < 1e-5
    assert server.requests == ["81.5_T2T_ViT_14.pth.tar"]


def test_a_file_without_a_digest_has_it_recorded(server, cache, file, published):
    assert_loaded(keras_t2t.T2TViT7(weights="imagenet"), published[1])
    record = cache / f"{file}.sha256"
    assert record.read_text() == hashlib.sha256(published[0]).hexdigest()
    # The same names and shapes with other values are refused from then on.
    os.remove(cache / file)
    server.files[file] = published[0][:-1] + b"\x07"
    with pytest.raises(
        keras_t2t.DownloadError, match=r"not the one that was published: its sha256 .* as .*\.sha256 has recorded"
    ):
        keras_t2t.T2TViT7()
    assert names(cache) == [record.name]


def test_a_file_without_a_digest_is_held_to_names_and_shapes(server, cache, file, published):
    parameters = {**published[1], "head.bias": np.zeros(999, "float32")}
    server.files[file] = legacy_file({"state_dict_ema": Ordered(parameters)})
    with pytest.raises(
        keras_t2t.DownloadError, match=r"not the one that was published: .*head.bias expected \(1000,\), received"
    ):
        keras_t2t.T2TViT7()
    assert names(cache) == []


def test_a_wrong_digest_is_refused(server, cache, file, published, monkeypatch):
    with_digest(monkeypatch, "imagenet", published[0])
    server.files[file] = published[0][:-1] + b"\x07"
    with pytest.raises(
        keras_t2t.DownloadError, match=rf"from {server.url}/{file} is not the one that was published: its sha384"
    ):
        keras_t2t.T2TViT7()
    server.files[file] = published[0][:-1]
    with pytest.raises(keras_t2t.DownloadError, match=rf"it has {len(published[0]) - 1} bytes, not {len(published[0])}"):
        keras_t2t.T2TViT7()
    assert names(cache) == []


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("fault", ["cut short", "cut short without a length", "404", "stalled"])
def test_after_a_break_the_next_call_starts_anew(server, cache, file, published, monkeypatch, fault, digest):
    monkeypatch.setattr(pretrained, "TIMEOUT", 1)
    if digest:
        with_digest(monkeypatch, "imagenet", published[0])
    server.faults = [fault]
    with pytest.raises(keras_t2t.DownloadError, match=rf"{server.url}/{file}"):
        keras_t2t.T2TViT7()
    assert names(cache) == []
    assert_loaded(keras_t2t.T2TViT7(), published[1])


def test_without_network_the_error_says_what_to_do(server, cache, file):
    server.shutdown(), server.server_close()
    with pytest.raises(keras_t2t.DownloadError) as error:
        keras_t2t.T2TViT7()
    for part in (file, f"{server.url}/{file}", str(cache), "KERAS_T2T_WEIGHTS_URL", "by hand"):
        assert part in str(error.value)


def test_a_file_put_into_the_cache_by_hand(server, cache, file, published):
    server.shutdown(), server.server_close()
    cache.mkdir(parents=True)
    (cache / file).write_bytes(published[0])
    assert_loaded(keras_t2t.T2TViT7(), published[1])
    # From the first use on it may not change.
    (cache / file).write_bytes(published[0][:-1] + b"\x07")
    with pytest.raises(
        keras_t2t.DownloadError, match=r"was not used: its sha256 digest is .* has recorded when it was first used"
    ):
        keras_t2t.T2TViT7()
    (cache / f"{file}.sha256").write_text("")
    with pytest.raises(keras_t2t.DownloadError, match="was not used: its sha256 digest is"):
        keras_t2t.T2TViT7()


def test_what_killed_processes_left_is_swept_a_day_later(cache, file):
    old, new = cache / ".downloading-old", cache / ".downloading-new"
    old.mkdir(parents=True), new.mkdir()
    os.utime(old, (0, 0))
    keras_t2t.T2TViT7()
    assert not old.exists() and new.exists()


@pytest.mark.parametrize("digits", [8, 64])
def test_openmmlab_files_are_held_to_digest_names_and_shapes(server, cache, monkeypatch, digits):
    source = registry.pretrained_weights_of("t2t_vit_t_14")["imagenet_openmmlab"]
    config = VARIANTS["t2t_vit_t_14"].config
    parameters = seeded_parameters(config, (224, 224))
    rows = zip(name_map(config, 197), name_map(config, 197, layout="openmmlab"), strict=True)
    state = {("" if t.source.startswith("head") else "backbone.") + t.source: parameters[o.source] for o, t in rows}
    average = {f"ema_{name.replace('.', '_')}": 0 * array for name, array in state.items()}
    good = legacy_file({"meta": {"CLASSES": ["a"]}, "state_dict": Ordered({**state, **average})})
    state["head.layers.head.bias"] = np.zeros(999, "float32")
    bad = legacy_file({"state_dict": Ordered(state)})
    for data in (bad, good):
        changed = dataclasses.replace(source, digest=f"sha256:{hashlib.sha256(data).hexdigest()[:digits]}")
        monkeypatch.setattr(registry, "PUBLISHED_WEIGHTS", (changed,))
        server.files[source.file] = data
        if data is bad:
            with pytest.raises(keras_t2t.DownloadError, match=r"head.bias expected \(1000,\), received \(999,\)"):
                keras_t2t.T2TViTt14(weights="imagenet_openmmlab")
            assert names(cache) == []
    assert_loaded(keras_t2t.T2TViTt14(weights="imagenet_openmmlab"), parameters)
    assert (f"{source.file}.sha256" in names(cache)) == (digits == 8)


def test_features_of_384_keep_the_positions_of_384(server):
    config = VARIANTS["t2t_vit_14"].config
    parameters = seeded_parameters(config, (384, 384))
    server.files["83.3_T2T_ViT_14.pth.tar"] = legacy_file({"state_dict_ema": Ordered(parameters)})
    model = keras_t2t.T2TViT14(weights="imagenet_384", include_top=False)
    np.testing.assert_array_equal(model.get_layer("position_embedding").table, parameters["pos_embed"][0])
    by_path = keras_t2t.T2TViT14(
        weights=pretrained.fetch(registry.pretrained_weights_of("t2t_vit_14")["imagenet_384"]), include_top=False
    )
    np.testing.assert_array_equal(by_path.get_layer("position_embedding").table, parameters["pos_embed"][0])
    assert keras_t2t.T2TViT14(weights="imagenet_384").input_shape == (None, 384, 384, 3)


def test_a_server_that_counts_in_words(server, file):
    server.faults = ["a length in words"]
    with pytest.raises(keras_t2t.DownloadError, match="invalid literal"):
        keras_t2t.T2TViT7()


def test_a_bad_file_in_the_cache_is_replaced(server, cache, file, published, monkeypatch):
    cache.mkdir(parents=True)
    (cache / file).write_bytes(published[0][:100])
    server.faults = ["404"]
    with pytest.raises(keras_t2t.DownloadError, match=r"404 .*The file of that name there was not used: Cannot read"):
        keras_t2t.T2TViT7()
    assert_loaded(keras_t2t.T2TViT7(), published[1])
    assert (cache / file).read_bytes() == published[0]
    assert len(server.requests) == 2


@contextlib.contextmanager
def no_space_beyond(size):
    """Lets no file grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(server, cache, file, published):
    with no_space_beyond(10**6), pytest.raises(keras_t2t.DownloadError, match=f"Cannot keep {file} in {cache}: .*KERAS_HOME"):
        keras_t2t.T2TViT7()
    assert names(cache) == []


def test_a_cache_that_cannot_be_written(server, file, tmp_path, monkeypatch):
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "a_file"))
    with pytest.raises(keras_t2t.DownloadError, match=f"Cannot keep {file} in .*a_file.*Set KERAS_HOME to another folder"):
        keras_t2t.T2TViT7()


def test_a_full_cache_may_be_read_only(cache, file, published):
    keras_t2t.T2TViT7()
    os.chmod(cache, 0o555)
    try:
        assert_loaded(keras_t2t.T2TViT7(), published[1])
    finally:
        os.chmod(cache, 0o755)


def test_two_processes_at_once(server, cache, file, published):
    code = "import keras_t2t; print(float(sum(abs(w).sum() for w in keras_t2t.T2TViT7().get_weights())))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    expected = sum(np.abs(array).sum(dtype="float64") for array in published[1].values())
    for output, _ in outputs:
        assert abs(float(output) - expected) < 1e-3 * expected
    assert names(cache) == [file, f"{file}.sha256"]
    assert_loaded(keras_t2t.T2TViT7(), published[1])


@pytest.mark.parametrize("kwargs", [{"pooling": "token"}, {}, {"input_shape": (64, 96, 3)}])
def test_features_and_other_sizes_come_by_the_same_road(file, published, kwargs):
    model = keras_t2t.T2TViT7(include_top=False, **kwargs)
    np.testing.assert_array_equal(model.get_layer("norm").beta, published[1]["norm.bias"])
    assert keras_t2t.labels_of(model) is None


def test_weights_of_other_data_bring_their_classes(server, monkeypatch):
    config = VARIANTS["t2t_vit_14"].config
    parameters = {f"module.{k}": v.astype("float16") for k, v in seeded_parameters(config, (224, 224), classes=10).items()}
    server.files["cifar10_t2t-vit_14_98.3.pth"] = legacy_file({"net": Ordered(parameters), "acc": 98.3, "epoch": 59})
    for model in (keras_t2t.T2TViT14(weights="cifar10"), keras_t2t.T2TViT("t2t_vit_14", weights="cifar10", classes=10)):
        assert model.output_shape == (None, 10)
        assert keras_t2t.labels_of(model)[3] == "cat"
        np.testing.assert_array_equal(model.get_layer("head").bias, parameters["module.head.bias"].astype("float32"))
    config = dataclasses.replace(config, drop_path_rate=0.1)
    assert keras_t2t.T2TViT(config, weights="cifar10").output_shape == (None, 10)


def test_the_home_of_keras_is_the_default(monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert pretrained.cache_folder() == pathlib.Path("/somewhere/.keras/models/keras_t2t")
