"""The weights that have names: plain data. Every figure of `SOURCES` was published by others, none was measured here.

Sources: the README and the releases of the reference implementation (https://github.com/yitu-opensource/T2T-ViT) and the model
zoo of OpenMMLab (https://github.com/open-mmlab/mmpretrain, `configs/t2t_vit/`).
"""

import dataclasses
import os
import pathlib

AUTHORS = "https://github.com/yitu-opensource/T2T-ViT/releases/download/main/"
OPENMMLAB = "https://download.openmmlab.com/mmclassification/v0/t2t-vit/"
MIRROR = "KERAS_T2T_WEIGHTS_URL"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One file of weights: published by others, or shipped with the package.

    Attributes:
        variant: the model, a key of `configs.VARIANTS`.
        name: what users call these weights.
        base: address of the folder that has the file; empty for what comes with the package.
        file: name of the file.
        top1, top5: accuracy in percent, of ImageNet's validation set or of the test set of the data fine-tuned on.
        dataset: whose classes the head has: `"imagenet"`, `"cifar10"` or `"cifar100"`.
        image_size: height and width of the images in pixels.
        crop: side of the centre crop over the side of the resized image.
        interpolation: how images are resized.
        size: bytes of the file, None where it was not published.
        digest: algorithm and hexadecimal digest of the file, or the start of it; None where it was not published.
        licence: of the weights.
    """

    variant: str
    name: str
    base: str
    file: str
    top1: float
    top5: float | None = None
    dataset: str = "imagenet"
    image_size: int = 224
    crop: float = 0.9
    interpolation: str = "bicubic"
    size: int | None = None
    digest: str | None = None
    licence: str = "Clear BSD"

    @property
    def classes(self) -> int:
        return {"imagenet": 1000, "cifar10": 10, "cifar100": 100}[self.dataset]

    @property
    def path(self) -> pathlib.Path | None:
        """The file, if it comes with the package: within it where it is installed, beside it in a checkout."""
        if self.base:
            return None
        package = pathlib.Path(__file__).parents[1]
        within, beside = (folder / "saved_models" / self.file for folder in (package, package.parent))
        return within if within.exists() else beside

    @property
    def url(self) -> str:
        """Address of the file, on the mirror that the environment variable `KERAS_T2T_WEIGHTS_URL` names if it is set."""
        return f"{(os.environ.get(MIRROR) or self.base).rstrip('/')}/{self.file}"

    @property
    def verified_by(self) -> str:
        """What a download is held to."""
        if self.digest is None:
            return "names and shapes"
        algorithm, digest = self.digest.split(":")
        algorithm = algorithm.upper().replace("SHA", "SHA-")
        return algorithm if len(digest) > 8 else f"{algorithm}, first {len(digest)} digits"


def _imagenet(variant, file, top1, top5, **changes):
    return Source(variant=variant, name="imagenet", base=AUTHORS, file=f"{file}.pth.tar", top1=top1, top5=top5, **changes)


def _fine_tuned(variant, dataset, file, top1):
    # The data were resized to 224x224 whole.
    return Source(variant=variant, name=dataset, base=AUTHORS, file=file, top1=top1, dataset=dataset, crop=1.0)


def _openmmlab(variant, file, top1, top5):
    digest = f"sha256:{file.rsplit('-', 1)[1]}"
    return Source(
        variant=variant,
        name="imagenet_openmmlab",
        base=OPENMMLAB,
        file=f"{file}.pth",
        top1=top1,
        top5=top5,
        digest=digest,
        licence="Apache-2.0",
    )


SOURCES: tuple[Source, ...] = (
    _imagenet("t2t_vit_7", "71.7_T2T_ViT_7", 71.68, 90.89),
    _imagenet("t2t_vit_10", "75.2_T2T_ViT_10", 75.15, 92.81),
    _imagenet("t2t_vit_12", "76.5_T2T_ViT_12", 76.48, 93.48),
    _imagenet(
        "t2t_vit_14",
        "81.5_T2T_ViT_14",
        81.50,
        95.67,
        size=86_212_823,
        digest="sha384:98c8ae06a1e9997f3e83ad2dfbac49985bf7bd7723eb64e4b8462338163be02657998f0bd9f8997367417003caeaf7a1",
    ),
    dataclasses.replace(
        _imagenet("t2t_vit_14", "83.3_T2T_ViT_14", 83.34, 96.50), name="imagenet_384", image_size=384, crop=1.0
    ),
    _fine_tuned("t2t_vit_14", "cifar10", "cifar10_t2t-vit_14_98.3.pth", 98.3),
    _fine_tuned("t2t_vit_14", "cifar100", "cirfar100_t2t-vit-14_88.4.pth", 88.4),  # so spelt where it is published
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


SHIPPED: tuple[Source, ...] = (
    Source(
        variant="t2t_vit_tiny_32",
        name="cifar10",
        base="",
        file="t2t_vit_tiny_32_cifar10/model.keras",
        top1=85.73,
        top5=99.31,
        dataset="cifar10",
        image_size=32,
        crop=1.0,
        licence="Apache-2.0",
    ),
)
"""What comes with the package, with accuracies that it measured itself: see the model cards in `saved_models/`."""


def sources_of(variant: str | None) -> dict[str, Source]:
    """Returns the weights of a variant by the names that users call them."""
    return {source.name: source for source in SOURCES + SHIPPED if source.variant == variant}
