"""The analysis examples, with reduced training."""

import re

import keras
import numpy as np

from examples import look_inside, segmentation


def test_look_inside(tmp_path, capsys):
    look_inside.main(["--output", str(tmp_path), "--against", "t2t_vit_tiny_32"])
    assert f"Top class of horse.jpg: horse. Wrote the plots to {tmp_path}" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"attention.png", "features.png", "redundancy.png", "cost.png"}


def test_segmentation(tmp_path, capsys):
    segmentation.main(["--epochs", "2", "--images", "120", "--output", str(tmp_path)])
    mean = float(re.search(r"24 held-out images: ([\d.]+)", capsys.readouterr().out)[1])
    assert mean > 0.3  # predicting only background gives about 0.2
    model = keras.models.load_model(tmp_path / "model.keras")
    assert model.predict(np.zeros((1, 32, 80, 3)), verbose=0).shape == (1, 32, 80, 4)


def test_intersection_over_union():
    masks, predictions = np.array([[0, 0, 1, 1, 2, 3]]), np.array([[0, 1, 1, 1, 3, 3]])
    np.testing.assert_allclose(segmentation.intersection_over_union(predictions, masks), [1 / 2, 2 / 3, 0, 1 / 2])


def test_drawn_images_match_their_masks():
    images, masks = segmentation.draw(20, seed=3)
    assert images.shape == (20, *segmentation.SIZE, 3) and set(np.unique(masks)) == {0, 1, 2, 3}
    pairs = list(zip(images, masks, strict=True))
    disk, stripes = (np.mean([image[mask == i].std(0) for image, mask in pairs if (mask == i).any()]) for i in (1, 3))
    assert stripes > 2 * disk  # stripes have two colors, disks one
