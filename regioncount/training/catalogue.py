"""Registration of the built-in optimizers and learning rate schedules with their options, and of augmentations.

This module does not import torch, so that configurations can be read without it.
"""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from regioncount.options import Options, StrictBool, StrictFloat, StrictInt
from regioncount.registry import register_augmentation, register_optimizer, register_schedule

NonNegative = Annotated[StrictFloat, Field(ge=0)]
Decay = Annotated[StrictFloat, Field(ge=0, lt=1)]


class OptimizerOptions(Options):
    """The options common to all optimizers. An optimizer adds its own in a subclass."""

    learning_rate: NonNegative
    """The learning rate at the start of the schedule."""
    weight_decay: NonNegative = 0.0
    """The weight decay."""


class SGDOptions(OptimizerOptions):
    """The supported options of `torch.optim.SGD`."""

    momentum: Decay = 0.0
    """The momentum."""
    nesterov: StrictBool = False
    """Use Nesterov momentum."""

    @model_validator(mode="after")
    def _check_nesterov(self) -> "SGDOptions":
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=true needs optimizer.momentum above 0")
        return self


class SAMOptions(SGDOptions):
    """The options of sharpness-aware minimization (Foret et al. 2020) with SGD."""

    rho: Annotated[StrictFloat, Field(gt=0)]
    """The L2 norm of the perturbation of the weights."""


class AdamOptions(OptimizerOptions):
    """The supported options of `torch.optim.Adam` and `torch.optim.AdamW`."""

    betas: Annotated[list[Decay], Field(min_length=2, max_length=2)] = Field(default_factory=lambda: [0.9, 0.999])
    """The decay rates of the averages of the gradient and of its square."""


class RMSpropOptions(OptimizerOptions):
    """The supported options of `torch.optim.RMSprop`."""

    alpha: Decay = 0.99
    """The decay rate of the average of the squared gradient."""
    momentum: Decay = 0.0
    """The momentum."""


class AdadeltaOptions(OptimizerOptions):
    """The supported options of `torch.optim.Adadelta`."""

    rho: Decay = 0.9
    """The decay rate of the averages."""


# fused: one kernel updates all weights, which trains narrow networks on a CPU a quarter faster.
# passes: the forward and backward passes in a training step.
# step: a function of the plain training step, the model and the options in step_options, which are not passed to the
#     factory. It returns the training step to use instead.
register_optimizer("sgd", "torch.optim:SGD", options=SGDOptions, fused=True)
register_optimizer(
    "sam",
    "torch.optim:SGD",
    options=SAMOptions,
    fused=True,
    passes=2,
    step="regioncount.training.steps:sam_step",
    step_options=("rho",),
)
register_optimizer("adam", "torch.optim:Adam", options=AdamOptions, fused=True)
register_optimizer("adamw", "torch.optim:AdamW", options=AdamOptions, fused=True)
register_optimizer("adagrad", "torch.optim:Adagrad", options=OptimizerOptions)
register_optimizer("rmsprop", "torch.optim:RMSprop", options=RMSpropOptions)
register_optimizer("adadelta", "torch.optim:Adadelta", options=AdadeltaOptions)


Epochs = Annotated[StrictInt, Field(ge=1)]
Factor = Annotated[StrictFloat, Field(gt=0, le=1)]


class ConstantOptions(Options):
    """Keep the learning rate constant, after a linear warm-up."""

    later: ClassVar[frozenset[str]] = frozenset({"warmup"})

    warmup: Annotated[StrictInt, Field(ge=0)] = 0
    """The number of first epochs in which the learning rate rises linearly; null: 0."""


class CosineOptions(ConstantOptions):
    """Lower the learning rate along half a cosine, after a linear warm-up."""

    later: ClassVar[frozenset[str]] = frozenset({"epochs", "final"})

    epochs: Epochs | None = None
    """The epochs of the schedule; null: those of the run. A run with fewer epochs stops early on the curve."""
    final: NonNegative = 0.0
    """The learning rate at the end of the schedule; null: 0."""


class StepOptions(Options):
    """Multiply the learning rate by gamma every `step_size` epochs."""

    step_size: Epochs
    """The epochs between two steps."""
    gamma: Factor
    """The factor on the learning rate. growing_batch divides the batch size by it instead."""


class MultistepOptions(Options):
    """Multiply the learning rate by gamma after each epoch in `milestones`."""

    milestones: list[Epochs]
    """The epochs after which the learning rate changes."""
    gamma: Factor
    """The factor on the learning rate."""


class ExponentialOptions(Options):
    """Multiply the learning rate by gamma every epoch."""

    gamma: Factor
    """The factor on the learning rate."""


# batch_size: a function of the run's batch size, the epoch, counted from 1, and the schedule's options, which returns the
#     number of images in the batches of that epoch, if the training set has as many.
register_schedule("constant", "regioncount.training.optimizers:constant", options=ConstantOptions)
register_schedule("cosine", "regioncount.training.optimizers:cosine", options=CosineOptions)
register_schedule("step", "regioncount.training.optimizers:step", options=StepOptions)
register_schedule("multistep", "regioncount.training.optimizers:multistep", options=MultistepOptions)
register_schedule("exponential", "regioncount.training.optimizers:exponential", options=ExponentialOptions)
register_schedule(
    "growing_batch",
    "regioncount.training.optimizers:growing_batch",
    options=StepOptions,
    batch_size="regioncount.training.optimizers:growing_batch_size",
)


# By default, a function of images, uint8 or float32 (B, C, H, W), and a generator, which returns such images.
# needs_images: it does not apply to features (B, F).
# mixes_labels: a function of normalized images, float (B, C, H, W), labels (B,), the number of classes and a generator. It
#     returns such images and class probabilities (B, classes).
# crops_files: `data.image_folder.decode_random_crop` replaces it for streamed images. Plugins cannot have this trait.
register_augmentation("none", "regioncount.data.augmentation:unchanged")
register_augmentation("crop_flip", "regioncount.data.augmentation:crop_flip", needs_images=True)
register_augmentation(
    "random_resized_crop", "regioncount.data.augmentation:random_resized_crop", crops_files=True, needs_images=True
)
register_augmentation("mixup", "regioncount.data.augmentation:mixup", mixes_labels=True)
