import numpy as np
import PIL.Image
import pytest


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty folder, made the current one, with a subfolder `photos` of 24 red and 24 blue pictures."""
    rng = np.random.default_rng(0)
    for name, color in {"blue": (30, 40, 200), "red": (200, 40, 30)}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(24):
            pixels = np.clip(rng.normal(color, 40, (41, 53, 3)), 0, 255).astype("uint8")
            PIL.Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path
