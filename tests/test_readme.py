"""README is short and correct: its code blocks run in order, and its table agrees with the package."""

import decimal
import re

import pytest

from keras_t2t.registry import PUBLISHED_WEIGHTS, SHIPPED_WEIGHTS
from tests.conftest import CONSTRUCTORS
from tests.pages import README, code_of, run
from tests.test_applications import PARAMETERS

VARIANTS = {function.__name__: variant for variant, function in CONSTRUCTORS.items()}
ROWS = re.findall(r"^\| `(T2T\w+)` \| ([\d.]+) M \| ([\d.]+) \| (.*) \|$", README.read_text(), re.MULTILINE)


def test_it_is_short():
    assert len(README.read_text().splitlines()) <= 150
    assert all(len(block.splitlines()) <= 10 for block in code_of(README))


@pytest.mark.slow
def test_code_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(README, capsys)["model"].output_shape == (None, 3)


def test_every_model_with_weights_is_in_the_table():
    assert {VARIANTS[row[0]] for row in ROWS} == {weights.variant for weights in PUBLISHED_WEIGHTS + SHIPPED_WEIGHTS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_table_of_models(row):
    constructor, parameters, top1, names = row
    known = [weights for weights in PUBLISHED_WEIGHTS + SHIPPED_WEIGHTS if weights.variant == VARIANTS[constructor]]
    with_10_classes = CONSTRUCTORS["t2t_vit_tiny_32"](weights=None, classes=10).count_params()
    count = with_10_classes if constructor == "T2TViTTiny32" else PARAMETERS[VARIANTS[constructor]]
    assert parameters == f"{count / 1e6:.1f}"
    assert decimal.Decimal(top1) == decimal.Decimal(str(known[0].top1)).quantize(decimal.Decimal("0.1"), "ROUND_HALF_UP")
    assert re.findall(r'`"(\w+)"`', names) == [weights.name for weights in known]
