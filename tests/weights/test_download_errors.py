"""Failed downloads: wrong files, broken connections and full disks raise a DownloadError that says what to do."""

import contextlib
import hashlib
import os
import resource

import numpy as np
import pytest

import keras_t2t
from keras_t2t.weights import pretrained
from tests.torch_files import Ordered, legacy_file
from tests.weights.downloads import assert_loaded, files_in, publish_digest

pytestmark = pytest.mark.usefixtures("cache")
NOT_PUBLISHED = "is not the published one. Try again, or set .* KERAS_T2T_WEIGHTS_URL .* Details: "


def test_a_file_without_a_full_digest_may_not_change_after_first_use(server, cache, file, published):
    assert_loaded(keras_t2t.T2TViT7(weights="imagenet"), published[1])
    record = cache / f"{file}.sha256"
    assert record.read_text() == hashlib.sha256(published[0]).hexdigest()
    os.remove(cache / file)
    server.files[file] = published[0][:-1] + b"\x07"  # the same names and shapes
    with pytest.raises(keras_t2t.DownloadError, match=rf"{NOT_PUBLISHED}Its sha256 .* recorded when .* delete {record}"):
        keras_t2t.T2TViT7()
    assert files_in(cache) == [record.name]


@pytest.mark.parametrize("digits", [0, 8])
def test_a_file_without_a_full_digest_is_verified_by_names_and_shapes(server, cache, file, published, monkeypatch, digits):
    parameters = {**published[1], "head.bias": np.zeros(999, "float32")}
    server.files[file] = legacy_file({"state_dict_ema": Ordered(parameters)})
    if digits:
        publish_digest(monkeypatch, server.files[file], digits=digits)
    with pytest.raises(keras_t2t.DownloadError, match=rf"{NOT_PUBLISHED}Its names or shapes .*\s+wrong shape: head.bias "):
        keras_t2t.T2TViT7()
    assert files_in(cache) == []


def test_a_file_with_a_wrong_digest_or_size_is_refused(server, cache, file, published, monkeypatch):
    publish_digest(monkeypatch, published[0])
    server.files[file] = published[0][:-1] + b"\x07"
    with pytest.raises(keras_t2t.DownloadError, match=f"from {server.url}/{file} {NOT_PUBLISHED}Its sha384 digest"):
        keras_t2t.T2TViT7()
    server.files[file] = published[0][:-1]
    size = len(published[0])
    with pytest.raises(keras_t2t.DownloadError, match=f"{NOT_PUBLISHED}Its size is {size - 1} bytes; expected {size}"):
        keras_t2t.T2TViT7()
    assert files_in(cache) == []


def test_a_cached_file_that_changes_is_refused(server, cache, file, published):
    keras_t2t.T2TViT7()
    server.shutdown(), server.server_close()
    (cache / file).write_bytes(published[0][:-1] + b"\x07")
    with pytest.raises(keras_t2t.DownloadError, match=r"in the cache was not used: Its sha256 .* recorded when"):
        keras_t2t.T2TViT7()
    (cache / f"{file}.sha256").write_text("")
    with pytest.raises(keras_t2t.DownloadError, match="was not used: Its sha256 digest is"):
        keras_t2t.T2TViT7()


def test_a_damaged_file_in_the_cache_is_replaced(server, cache, file, published):
    cache.mkdir(parents=True)
    (cache / file).write_bytes(published[0][:100])
    server.faults = ["404"]
    with pytest.raises(keras_t2t.DownloadError, match=f"404 .*\\nThe file in the cache was not used: Cannot read {file}: "):
        keras_t2t.T2TViT7()
    assert_loaded(keras_t2t.T2TViT7(), published[1])
    assert (cache / file).read_bytes() == published[0]
    assert len(server.requests) == 2


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("fault", ["truncated", "truncated without a length", "404", "stalled"])
@pytest.mark.slow
def test_a_broken_download_can_be_repeated(server, cache, file, published, monkeypatch, fault, digest):
    monkeypatch.setattr(pretrained, "TIMEOUT", 1)
    if digest:
        publish_digest(monkeypatch, published[0])
    server.faults = [fault]
    with pytest.raises(keras_t2t.DownloadError, match=rf"{server.url}/{file}"):
        keras_t2t.T2TViT7()
    assert files_in(cache) == []
    assert_loaded(keras_t2t.T2TViT7(), published[1])


def test_an_invalid_response_is_refused(server, file):
    server.faults = ["invalid length"]
    with pytest.raises(keras_t2t.DownloadError, match="invalid literal"):
        keras_t2t.T2TViT7()


def test_the_error_without_a_network_says_what_to_do(server, cache, file):
    server.shutdown(), server.server_close()
    with pytest.raises(keras_t2t.DownloadError) as error:
        keras_t2t.T2TViT7()
    assert str(error.value).startswith(
        "The weights t2t_vit_7:imagenet cannot be downloaded. If this machine is offline, download\n"
        f"  {server.url}/{file}\non another one and copy the file to the folder\n  {cache}\n"
        "or set the environment variable KERAS_T2T_WEIGHTS_URL to the URL of a mirror.\nCause: "
    )


@contextlib.contextmanager
def file_size_limit(size):
    """Limits files to `size` bytes, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(cache, file):
    with file_size_limit(10**6), pytest.raises(keras_t2t.DownloadError, match=f"write {file} to {cache}: .*KERAS_HOME"):
        keras_t2t.T2TViT7()
    assert files_in(cache) == []


def test_a_cache_that_is_not_writable(file, tmp_path, monkeypatch):
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "a_file"))
    with pytest.raises(keras_t2t.DownloadError, match=f"Cannot write {file} to .*a_file.* KERAS_HOME to another folder"):
        keras_t2t.T2TViT7()
