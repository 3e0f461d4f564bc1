"""The names of the classes of the data that published weights were trained on, in the order of their numbers."""

from keras_t2t.imagenet import class_names

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar
cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl
hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


def dataset_labels(dataset: str) -> tuple[str, ...]:
    """Returns the class names of `"imagenet"`, `"cifar10"` or `"cifar100"`."""
    if dataset == "imagenet":
        return tuple(name for _, name in class_names())
    return tuple({"cifar10": CIFAR10, "cifar100": CIFAR100}[dataset].split())
