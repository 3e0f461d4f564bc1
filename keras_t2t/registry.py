"""The pretrained weights, as plain data. Every number in `PUBLISHED_WEIGHTS` was published by others and not measured here.

Sources: the README and the releases of the reference implementation (https://github.com/yitu-opensource/T2T-ViT), and the model
zoo of OpenMMLab (https://github.com/open-mmlab/mmpretrain, `configs/t2t_vit/`).
"""

import dataclasses
import os
import pathlib

from keras_t2t import assets
from keras_t2t.preprocessing import CIFAR_MEAN, CIFAR_STD, Preprocessing
from keras_t2t.variants import VARIANTS

AUTHORS_URL = "https://github.com/yitu-opensource/T2T-ViT/releases/download/main/"
OPENMMLAB_URL = "https://download.openmmlab.com/mmclassification/v0/t2t-vit/"
MIRROR = "KERAS_T2T_WEIGHTS_URL"
_IMAGENET = Preprocessing()
_CIFAR = Preprocessing(crop_fraction=1.0, interpolation="bilinear", mean=CIFAR_MEAN, std=CIFAR_STD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """A file of pretrained weights, published by others or shipped with the package.

    Attributes:
        variant: Name of the model, a key of `keras_t2t.VARIANTS`.
        name: Name of the weights, such as `"imagenet"`, unique within the variant.
        file: Name of the file.
        base_url: URL of the folder that contains the file, or an empty string if the file ships with the package.
        top1: Top-1 accuracy in percent, on the validation set of ImageNet or the test set of another `dataset`.
        top5: Top-5 accuracy in percent, or `None` if it was not published.
        dataset: Dataset whose classes the head predicts: `"imagenet"`, `"cifar10"` or `"cifar100"`.
        preprocessing: How images were prepared when the accuracy was measured.
        size: Size of the file in bytes, or `None` if it was not published.
        digest: Full digest of the file, or its first digits, as `"ALGORITHM:HEXADECIMAL"`. `None` if it was not published.
        license: License of the weights.
    """

    variant: str
    name: str
    file: str
    base_url: str = AUTHORS_URL
    top1: float
    top5: float | None = None
    dataset: str = "imagenet"
    preprocessing: Preprocessing = _IMAGENET
    size: int | None = None
    digest: str | None = None
    license: str = "Clear BSD"

    @property
    def classes(self) -> int:
        """Number of classes of the head."""
        return len(assets.class_names(self.dataset))

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.preprocessing.image_size[0]

    @property
    def path(self) -> pathlib.Path | None:
        """Path of the file if it ships with the package, otherwise `None`."""
        return None if self.base_url else assets.folder("saved_models") / self.file

    @property
    def url(self) -> str:
        """URL of the file. If the environment variable `KERAS_T2T_WEIGHTS_URL` is set, it is the URL of the mirror to use."""
        return f"{(os.environ.get(MIRROR) or self.base_url).rstrip('/')}/{self.file}"

    @property
    def verified_by(self) -> str:
        """How a download is verified, as text for display."""
        if self.digest is None:
            return "names and shapes"
        algorithm, digest = self.digest.split(":")
        algorithm = algorithm.upper().replace("SHA", "SHA-")
        return algorithm if self.has_full_digest else f"{algorithm}, first {len(digest)} digits"

    @property
    def has_full_digest(self) -> bool:
        """Whether the publisher's whole digest is known, rather than only its first digits."""
        return self.digest is not None and len(self.digest.split(":")[1]) > 8


def _imagenet(variant: str, file: str, top1: float, top5: float) -> PretrainedWeights:
    return PretrainedWeights(variant=variant, name="imagenet", file=f"{file}.pth.tar", top1=top1, top5=top5)


def _fine_tuned(variant: str, dataset: str, file: str, top1: float) -> PretrainedWeights:
    return PretrainedWeights(variant=variant, name=dataset, file=file, top1=top1, dataset=dataset, preprocessing=_CIFAR)


def _openmmlab(variant: str, file: str, top1: float, top5: float) -> PretrainedWeights:
    return PretrainedWeights(
        variant=variant,
        name="imagenet_openmmlab",
        file=f"{file}.pth",
        base_url=OPENMMLAB_URL,
        top1=top1,
        top5=top5,
        digest=f"sha256:{file.rsplit('-', 1)[1]}",
        license="Apache-2.0",
    )


PUBLISHED_WEIGHTS: tuple[PretrainedWeights, ...] = (
    _imagenet("t2t_vit_7", "71.7_T2T_ViT_7", 71.68, 90.89),
    _imagenet("t2t_vit_10", "75.2_T2T_ViT_10", 75.15, 92.81),
    _imagenet("t2t_vit_12", "76.5_T2T_ViT_12", 76.48, 93.48),
    dataclasses.replace(
        _imagenet("t2t_vit_14", "81.5_T2T_ViT_14", 81.50, 95.67),
        size=86_212_823,
        digest="sha384:98c8ae06a1e9997f3e83ad2dfbac49985bf7bd7723eb64e4b8462338163be02657998f0bd9f8997367417003caeaf7a1",
    ),
    dataclasses.replace(
        _imagenet("t2t_vit_14", "83.3_T2T_ViT_14", 83.34, 96.50),
        name="imagenet_384",
        preprocessing=Preprocessing(image_size=(384, 384), crop_fraction=1.0),
    ),
    _fine_tuned("t2t_vit_14", "cifar10", "cifar10_t2t-vit_14_98.3.pth", 98.3),
    _fine_tuned("t2t_vit_14", "cifar100", "cirfar100_t2t-vit-14_88.4.pth", 88.4),  # the published file has this typo
    _imagenet("t2t_vit_19", "81.9_T2T_ViT_19", 81.93, 95.74),
    _fine_tuned("t2t_vit_19", "cifar10", "cifar10_t2t-vit_19_98.4.pth", 98.4),
    _fine_tuned("t2t_vit_19", "cifar100", "cifar100_t2t-vit-19_89.0.pth", 89.0),
    _imagenet("t2t_vit_24", "82.3_T2T_ViT_24", 82.28, 95.89),
    _imagenet("t2t_vit_t_14", "81.7_T2T_ViTt_14", 81.69, 95.85),
    _openmmlab("t2t_vit_t_14", "t2t-vit-t-14_8xb64_in1k_20211220-f7378dd5", 81.83, 95.84),
    _imagenet("t2t_vit_t_19", "82.4_T2T_ViTt_19", 82.44, 96.08),
    _openmmlab("t2t_vit_t_19", "t2t-vit-t-19_8xb64_in1k_20211214-7f5e3aaf", 82.63, 96.18),
    _imagenet("t2t_vit_t_24", "82.6_T2T_ViTt_24", 82.55, 96.06),
    _openmmlab("t2t_vit_t_24", "t2t-vit-t-24_8xb64_in1k_20211214-b2a68ae3", 82.71, 96.09),
)


SHIPPED_WEIGHTS: tuple[PretrainedWeights, ...] = (
    PretrainedWeights(
        variant="t2t_vit_tiny_32",
        name="cifar10",
        file="t2t_vit_tiny_32_cifar10/model.keras",
        base_url="",
        top1=90.32,
        top5=99.76,
        dataset="cifar10",
        preprocessing=Preprocessing(image_size=(32, 32), crop_fraction=1.0),
        license="Apache-2.0",
    ),
)
"""Weights that ship with the package. Their accuracy was measured by this project; see the model cards in `saved_models/`."""


def pretrained_weights_of(variant: str | None) -> dict[str, PretrainedWeights]:
    """Returns the pretrained weights of a variant by name. For `None` or an unknown variant, there are none."""
    return {weights.name: weights for weights in PUBLISHED_WEIGHTS + SHIPPED_WEIGHTS if weights.variant == variant}


def list_models(pretrained: bool = False) -> list[str]:
    """Returns the names of the models, as accepted by the command line.

    Args:
        pretrained: Whether to list the pretrained weights, as `VARIANT:WEIGHTS`, instead of the variants.

    Returns:
        The names.

    Example:

    >>> keras_t2t.list_models(pretrained=True)[-1]
    't2t_vit_tiny_32:cifar10'
    """
    if not pretrained:
        return list(VARIANTS)
    return [f"{variant}:{name}" for variant in VARIANTS for name in pretrained_weights_of(variant)]
