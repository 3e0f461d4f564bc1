"""Helpers for tests of downloads."""

import dataclasses
import hashlib

import numpy as np

from keras_t2t import registry


def publish_digest(monkeypatch, data, variant="t2t_vit_7", name="imagenet", digits=None):
    """Adds the size and the digest of a file, or its first digits, to the registry."""
    changes = {"size": len(data), "digest": f"sha384:{hashlib.sha384(data).hexdigest()[:digits]}"}
    changed = [
        dataclasses.replace(weights, **changes) if (weights.variant, weights.name) == (variant, name) else weights
        for weights in registry.PUBLISHED_WEIGHTS
    ]
    monkeypatch.setattr(registry, "PUBLISHED_WEIGHTS", tuple(changed))


def assert_loaded(model, parameters):
    np.testing.assert_array_equal(model.get_layer("norm").gamma, parameters["norm.weight"])
    np.testing.assert_array_equal(model.get_layer("head").kernel, parameters["head.weight"].T)
    np.testing.assert_array_equal(model.get_layer("position_embedding").table, parameters["pos_embed"][0])


def files_in(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []
