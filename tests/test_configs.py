"""Tests of configurations: derived values and validation."""

import dataclasses
import json

import numpy as np
import pytest

from keras_t2t.configs import T2TConfig, token_grid
from keras_t2t.variants import VARIANTS

SIZES = [((224, 224), (14, 14)), ((384, 384), (24, 24)), ((320, 256), (20, 16)), ((3, 29), (1, 2))]


@pytest.mark.parametrize(("size", "grid"), SIZES)
def test_token_grid_of_the_published_soft_splits(size, grid):
    assert token_grid(T2TConfig().soft_splits, *size) == grid


def test_token_grid_counts_the_windows_inside_the_image():
    for kernel, stride, padding, size in [(7, 4, 2, 29), (3, 2, 1, 8), (5, 1, 0, 5), (4, 3, 3, 11)]:
        starts = range(-padding, size + padding - kernel + 1, stride)
        assert token_grid([(kernel, stride, padding)], size, None) == (len(starts), None)


def test_token_grid_raises_for_images_without_a_token():
    for splits, size in [([(7, 4, 0), (3, 2, 0)], (40, 4)), ([(7, 4, 0), (4, 2, 2)], (40, 5))]:
        with pytest.raises(ValueError, match=rf"large enough for one token.*received: height=40, width={size[1]}"):
            token_grid(splits, *size)


def test_widths_of_the_densely_connected_variant():
    config = VARIANTS["t2t_vit_dense"].config
    assert config.group_widths == (128, 160, 272, 328)
    assert config.block_widths[:5] == (128, 192, 256, 160, 224)
    assert config.feature_dim == 584


def test_widths_of_a_plain_backbone():
    assert VARIANTS["t2t_vit_7"].config.block_widths == (256,) * 7
    assert VARIANTS["t2t_vit_7"].config.feature_dim == 256


def test_numpy_integers_become_python_integers():
    assert type(T2TConfig(embed_dim=np.int64(384)).embed_dim) is int


def test_lists_become_tuples_so_that_configs_are_comparable_and_hashable():
    config = T2TConfig(soft_splits=[[7, 4, 2], [3, 2, 1], [3, 2, 1]])
    assert config == T2TConfig()
    assert hash(config) == hash(T2TConfig())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_attention": "linformer"}, r"token_attention: expected one of \('performer', 'transformer', 'convolution'\)"),
        ({"block": "resnext"}, r"block: expected one of .*; received: block='resnext'"),
        ({"soft_splits": ()}, r"soft_splits: expected one or more tuples \(kernel, stride, padding\)"),
        ({"soft_splits": ((7, 4),)}, r"received: soft_splits=\(\(7, 4\),\)"),
        ({"soft_splits": ((3, 0, 1),)}, "stride >= 1"),
        ({"soft_splits": ((3, 2, 3),)}, "padding < kernel"),
        ({"soft_splits": ((3.0, 2, 1),)}, "of integers"),
        ({"embed_dim": 0}, "embed_dim: expected a positive integer; received: embed_dim=0"),
        ({"token_dim": 6.4}, "token_dim: expected a positive integer"),
        ({"num_heads": 7}, r"num_heads: expected a divisor of the width of every block, \[384\]; received: num_heads=7"),
        ({"depth": (3, 4)}, r"depth: expected a positive integer; received: depth=\(3, 4\)"),
        ({"depth": 0}, "depth: expected a positive integer"),
        ({"mlp_ratio": -1}, "mlp_ratio: expected a positive number"),
        ({"mlp_ratio": "3"}, "mlp_ratio: expected a positive number; received: mlp_ratio='3'"),
        ({"mlp_ratio": float("inf")}, "mlp_ratio: expected a positive number"),
        ({"mlp_ratio": 0.001}, "mlp_ratio: expected a number that gives the MLPs at least one hidden channel"),
        ({"drop_rate": None}, r"drop_rate: expected a rate in \[0, 1\); received: drop_rate=None"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate: expected a rate in \[0, 1\)"),
        ({"token_drop_rate": -0.1}, r"token_drop_rate: expected a rate in \[0, 1\)"),
        ({"growth": 64}, "growth: expected None with block='standard'; received: growth=64"),
        ({"block": "dense"}, "growth: expected a positive integer with block='dense'; received: growth=None"),
        ({"block": "dense", "growth": 64, "depth": ()}, "depth: expected a tuple of positive integers"),
        ({"block": "dense", "growth": 64, "depth": (2, 2)}, r"num_heads: expected a divisor of the width of every block, \["),
        ({"block": "ghost", "embed_dim": 33, "num_heads": 3}, "embed_dim: expected an even number with block='ghost'"),
        (
            {"block": "ghost", "mlp_ratio": 3.5, "embed_dim": 380, "num_heads": 4},
            "mlp_ratio: expected a number that makes the hidden width of the MLP divisible by 3",
        ),
    ],
)
def test_invalid_values_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        T2TConfig(**changes)


def test_unknown_arguments_raise():
    with pytest.raises(TypeError, match="patch_size"):
        T2TConfig(patch_size=16)


def test_numpy_integers_are_stored_as_integers():
    """Model files cannot store those of numpy."""
    config = T2TConfig(depth=(np.int64(2), np.int64(1)), block="dense", growth=np.int64(8), embed_dim=16, num_heads=2)
    assert json.loads(json.dumps(dataclasses.asdict(config)))["depth"] == [2, 1]
    assert json.dumps(dataclasses.asdict(T2TConfig(depth=np.int64(3))))
