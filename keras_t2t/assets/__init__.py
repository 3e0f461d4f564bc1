"""Files that ship with the package: class names, sample images, and a trained model."""

import functools
import importlib.resources
import pathlib

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar
cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl
hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
IN_CHECKOUT = {"images": "examples/images", "saved_models": "saved_models"}
"""Paths of the folders in a checkout of the repository. In an installed package, they are in this folder, named by key."""


def folder(name: str) -> pathlib.Path:
    """Returns the path of a folder: `"images"` (sample photos from CIFAR-10) or `"saved_models"` (the trained model)."""
    here = pathlib.Path(__file__).parent
    installed = here / name
    return installed if installed.is_dir() else here.parents[1] / IN_CHECKOUT[name]


@functools.cache
def imagenet_classes() -> list[tuple[str, str]]:
    """Returns the `(WordNet ID, name)` of each of the 1,000 ImageNet classes, in the order of the models' outputs."""
    text = importlib.resources.files(__name__).joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return [(wordnet_id, name) for wordnet_id, name in rows]


def class_names(dataset: str) -> tuple[str, ...]:
    """Returns the class names of `"imagenet"`, `"cifar10"` or `"cifar100"`, in the order of the labels."""
    if dataset == "imagenet":
        return tuple(name for _, name in imagenet_classes())
    return tuple({"cifar10": CIFAR10, "cifar100": CIFAR100}[dataset].split())
