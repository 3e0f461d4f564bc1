"""The settings of a training run: flat, typed, immutable, and checked when they are created."""

import dataclasses
import typing
from typing import Any

from keras_t2t.configs import token_grid
from keras_t2t.errors import did_you_mean
from keras_t2t.extras import yaml_module
from keras_t2t.recipes.augmentation import Augmentation
from keras_t2t.variants import REFERENCE_NAMES, find_variant


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Augmentation):
    """The settings of a training run. The defaults are those of T2T-ViT-14 on ImageNet.

    A recipe also has the fields of `keras_t2t.data.Augmentation`.

    Args:
        model: Name of the variant, a key of `keras_t2t.variants.VARIANTS`, or of another model of a study (see
            `keras_t2t.studies.Study`).
        image_size: Height and width of the images in pixels.
        epochs: Number of epochs of warm-up and cosine decay.
        warmup_epochs: Number of epochs in which the learning rate rises linearly. They count toward `epochs`.
        cooldown_epochs: Number of epochs at the final learning rate. They come after `epochs`.
        batch_size: Number of images in a batch, across all devices.
        optimizer: `"adamw"` or `"sgd"`.
        learning_rate: Peak learning rate, reached after warm-up.
        warmup_learning_rate: Learning rate at the start of warm-up.
        final_learning_rate: Learning rate at the end of the cosine decay, and during cool-down.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of all weights except biases, norms, scales, the class token, and the position embedding.
        global_clipnorm: Maximum norm of all gradients together. 0 disables clipping. With several devices under
            `tf.distribute`, Keras clips the gradients of each device separately.
        gradient_accumulation_steps: Number of batches whose gradients are averaged for one update of the weights.
        backbone_lr_multiplier: Learning rate of the backbone, relative to that of the head.
        layer_decay: Learning rate of each block, relative to that of the next block.
        freeze_backbone: Whether to train only the head.
        freeze_embeddings: Whether to freeze the class token, the position embedding, and the final norm.
        shared_final_lr: Whether all layers end at `final_learning_rate`. Otherwise, multipliers apply to it as well.
        decay_all_weights: Whether weight decay also applies to biases, norms, scales, the class token, and the position
            embedding.
        token_drop_rate: Dropout rate inside the token performers.
        drop_rate: Dropout rate after the position embedding, the attention projections, and the MLPs.
        drop_path_rate: Drop path (stochastic depth) rate of the last block. It increases linearly from 0 in the first block.
        ema_momentum: Momentum of the moving average of the weights. 0 disables the average. The momentum starts low and follows
            `(1 + step) / (10 + step)` until it reaches this value.
        class_weights: Whether to give rare classes more weight, so that all classes contribute equally to the loss.
        early_stopping_patience: Number of epochs without a better validation accuracy after which training stops. This is
            checked at each evaluation. 0 disables early stopping.
        dtype: Keras dtype policy: `"float32"`, `"mixed_bfloat16"`, or `"mixed_float16"` (which scales the loss).
        jit_compile: Whether to compile with XLA. The JAX backend always does.
        rematerialize: Whether to compute the results inside each block again in the backward pass instead of keeping them.
            Training takes less memory and more time. Needs `drop_rate=0` and Keras 3.9 or newer.
        eval_crop_fraction: Side of the center crop as a fraction of the resized image, in evaluation.
        eval_interpolation: Method of `tf.image.resize`, in evaluation.
        mean: Mean of each channel for normalization, on a scale of 0 to 1. If empty, it is taken from the initial weights, or
            from ImageNet if there are none.
        std: Standard deviation of each channel for normalization. See `mean`.
        evaluate_every: Number of epochs between evaluations.
        validation_fraction: Fraction of each class to hold out if the data has no validation split.
        cache: Whether to keep the decoded images of a folder in memory. All of them must have the same size.
        skip_bad_files: Whether to skip files of a folder that cannot be read. Otherwise, they raise an error.
        seed: Random seed of the whole run.

    Raises:
        ValueError: If a setting is invalid.

    Example:

    >>> recipe = keras_t2t.training.Recipe(model="t2t_vit_7", epochs=30)
    >>> recipe.replace(learning_rate="1e-3").learning_rate
    0.001
    """

    model: str = "t2t_vit_14"
    image_size: int = 224
    epochs: int = 300
    warmup_epochs: int = 10
    cooldown_epochs: int = 10
    batch_size: int = 512
    optimizer: str = "adamw"
    learning_rate: float = 5e-4
    warmup_learning_rate: float = 1e-6
    final_learning_rate: float = 1e-5
    momentum: float = 0.9
    weight_decay: float = 0.05
    global_clipnorm: float = 0.0
    gradient_accumulation_steps: int = 1
    backbone_lr_multiplier: float = 1.0
    layer_decay: float = 1.0
    freeze_backbone: bool = False
    freeze_embeddings: bool = False
    shared_final_lr: bool = False
    decay_all_weights: bool = False
    token_drop_rate: float = 0.1
    drop_rate: float = 0.0
    drop_path_rate: float = 0.1
    ema_momentum: float = 0.99996
    class_weights: bool = False
    early_stopping_patience: int = 0
    dtype: str = "float32"
    jit_compile: bool = False
    rematerialize: bool = False
    eval_crop_fraction: float = 0.9
    eval_interpolation: str = "bicubic"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    evaluate_every: int = 1
    validation_fraction: float = 0.2
    cache: bool = False
    skip_bad_files: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"Expected warmup_epochs <= epochs; received: warmup_epochs={self.warmup_epochs}, epochs={self.epochs}"
            )
        if bool(self.mean) != bool(self.std):
            raise ValueError(f"Expected both mean and std, or neither; received: mean={self.mean}, std={self.std}")
        if self.rematerialize and self.drop_rate:
            raise ValueError(f"Expected drop_rate=0 with rematerialize=True; received: drop_rate={self.drop_rate}")
        if self.model not in REFERENCE_NAMES:
            token_grid(find_variant(self.model).config.soft_splits, self.image_size, self.image_size)

    @property
    def total_epochs(self) -> int:
        """Number of epochs, including cool-down."""
        return self.epochs + self.cooldown_epochs

    def replace(self, **changes: Any) -> "Recipe":
        """Returns a copy of the recipe with some settings changed.

        Args:
            **changes: New values by name. Strings are converted, as on a command line.

        Raises:
            ValueError: If there is no setting of that name, or if a value is invalid.
        """
        types = typing.get_type_hints(type(self))
        unknown = sorted(set(changes) - set(types))
        if unknown:
            hint = did_you_mean(unknown[0], types)
            raise ValueError(f"Unknown settings {unknown}; expected some of: {', '.join(types)}{hint}")
        return dataclasses.replace(self, **changes)

    def to_yaml(self) -> str:
        """Returns the recipe as YAML, with one line for each setting."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()}
        return yaml_module().safe_dump(values, sort_keys=False, default_flow_style=None)
