"""Registration of the built-in models with their options and kinds.

This module imports neither torch nor scikit-learn, so that configurations can be read without them. Options of scikit-learn
classifiers have scikit-learn's names.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model, model_validator

from regioncount.options import Options, PositiveInt, StrictBool, StrictFloat, StrictInt, StrictStr, options_model
from regioncount.registry import models, register_model

MAX_SEED = 2**32 - 1  # the largest random_state of scikit-learn
MAX_SIZE = 2**16  # of widths, depths, numbers of classes and channels, and image sides in pixels

Size = Annotated[StrictInt, Field(ge=1, le=MAX_SIZE)]
Fraction = Annotated[StrictFloat, Field(ge=0, lt=1)]
Positive = Annotated[StrictFloat, Field(gt=0)]
LargeCount = Annotated[StrictInt, Field(ge=1, le=10**7)]


WIDTH = "The channels of the first convolution; all others scale with it."


def _convolutional_options(default: int) -> type[Options]:
    """Return an options model with one field, width: the channels of the first convolution; all others scale with it."""
    fields: dict[str, Any] = {"width": (Annotated[Size, Field(description=WIDTH)], default)}
    return create_model("ConvolutionalOptions", __base__=Options, **fields)


class ResidualOptions(Options):
    """The options of ResNet-18 and ResNet-34."""

    later: ClassVar[frozenset[str]] = frozenset({"stem"})

    width: Size = 64
    """The channels of the first convolution; all others scale with it."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """The first layers: a 3x3 convolution; or, as in the paper's ResNets for ImageNet, one of stride 2, followed by 3x3 max
    pooling of stride 2."""


# named_by: the option that is part of the name in tables, unless it is left out of records.
register_model("resnet18", "regioncount.models.resnet:resnet18", options=ResidualOptions, named_by="stem")
register_model("resnet34", "regioncount.models.resnet:resnet34", options=ResidualOptions, named_by="stem")
for _name, _factory, _default in (
    ("vgg19", "vgg:vgg19", 64),
    ("mobilenet", "mobilenet:mobilenet", 32),
    ("senet18", "senet:senet18", 64),
    ("shufflenetv2", "shufflenet:shufflenetv2", 24),
    ("efficientnet_b0", "efficientnet:efficientnet_b0", 32),
    ("regnetx_200mf", "regnet:regnetx_200mf", 64),
    ("simple_dla", "dla:simple_dla", 16),
    ("mobilenetv2", "mobilenet:mobilenetv2", 32),
    ("small_cnn", "small_cnn:small_cnn", 16),
):
    register_model(_name, f"regioncount.models.{_factory}", options=_convolutional_options(_default))


class PerceptronOptions(Options):
    """The options of a multilayer perceptron."""

    width: Size = 128
    """The number of units in each hidden layer."""
    depth: Size = 2
    """The number of hidden layers."""


class TransformerOptions(Options):
    """The options of a vision transformer."""

    later: ClassVar[frozenset[str]] = frozenset({"variant"})

    patch_size: Size = 4
    """Height and width of a patch in pixels; must divide the image size."""
    width: Size = 512
    """The dimension of a token; a multiple of model.heads."""
    depth: Size = 6
    """The number of encoder layers."""
    heads: Size = 8
    """The number of attention heads in each layer."""
    mlp_width: Size = 512
    """The number of hidden units of the perceptron in each layer."""
    dropout: Fraction = 0.1
    """The dropout rate."""
    variant: Literal["standard", "vit_cifar"] = "standard"
    """The network of Dosovitskiy et al. 2021; or that of the paper's experiment, in which attention, perceptrons and initial
    embeddings differ."""


class TorchvisionOptions(Options):
    """The options of a torchvision classifier."""

    later: ClassVar[frozenset[str]] = frozenset({"weights"})

    architecture: StrictStr = "resnet18"
    """Any classifier in torchvision.models.list_models()."""
    weights: StrictStr | None = None
    """Pretrained weights, such as DEFAULT or IMAGENET1K_V1; null: random ones."""


class TimmOptions(Options):
    """The options of a classifier of the package timm."""

    architecture: StrictStr = "resnet18"
    """Any name in timm.list_models(), with or without the tag of the weights, such as resnet18.a1_in1k."""
    pretrained: StrictBool = False
    """Whether to begin with pretrained weights."""
    checkpoint_path: StrictStr | None = None
    """A file of the pretrained weights; null: timm's cache, or a download."""


class HuggingFaceOptions(Options):
    """The options of an image classifier of the package transformers."""

    path: StrictStr
    """A folder written by save_pretrained, or a name on the Hugging Face Hub, such as microsoft/resnet-50."""
    pretrained: StrictBool = True
    """Whether to begin with pretrained weights; if not, only the configuration is read."""
    digest: StrictStr | None = None
    """A hash of the file config.json, which is recorded by the commands."""


# takes_features: the inputs may be features (B, F) instead of images.
register_model("mlp", "regioncount.models.mlp:mlp", options=PerceptronOptions, takes_features=True)
register_model("vision_transformer", "regioncount.models.vision_transformer:vision_transformer", options=TransformerOptions)
# reads_values: the constructor reads values of tensors, as those of torchvision's RegNets do. It cannot run on the meta
#     device, on which the size of other networks is checked.
# pretrained: the module of a package with pretrained weights; see `pretrained.Source`. weights_option: the option that asks
#     for them.
register_model(
    "torchvision",
    "regioncount.models.torchvision:torchvision_classifier",
    options=TorchvisionOptions,
    named_by="architecture",
    reads_values=True,
    pretrained="regioncount.models.torchvision",
    weights_option="weights",
)
register_model(
    "timm",
    "regioncount.models.timm:timm_classifier",
    options=TimmOptions,
    named_by="architecture",
    reads_values=True,
    pretrained="regioncount.models.timm",
    weights_option="pretrained",
)
register_model(
    "huggingface",
    "regioncount.models.huggingface:huggingface_classifier",
    options=HuggingFaceOptions,
    named_by="path",
    reads_values=True,
    pretrained="regioncount.models.huggingface",
    weights_option="pretrained",
)


def asks_for_weights(model: Mapping[str, Any]) -> bool:
    """Return whether a model of a configuration begins with pretrained weights."""
    entry = None if "_target_" in model else models.get(model["name"])
    if entry is None or "weights_option" not in entry.traits:
        return False
    option = entry.traits["weights_option"]
    return bool(model.get(option, options_model(entry).model_fields[option].default))


Criterion = Literal["gini", "entropy"]  # scikit-learn's log_loss is another name of entropy


class DecisionTreeOptions(Options):
    """The supported options of `sklearn.tree.DecisionTreeClassifier`."""

    later: ClassVar[frozenset[str]] = frozenset({"criterion", "splitter"})

    max_depth: PositiveInt | None = None
    """The maximum depth of a tree; null: split until leaves are pure."""
    min_samples_leaf: PositiveInt = 1
    """The minimum number of training images in a leaf."""
    criterion: Criterion = "gini"
    """The quality of a split."""
    splitter: Literal["best", "random"] = "best"
    """How a split is chosen."""


class RandomForestOptions(Options):
    """The supported options of `sklearn.ensemble.RandomForestClassifier`."""

    later: ClassVar[frozenset[str]] = frozenset({"criterion"})

    n_estimators: PositiveInt = 100
    """The number of trees."""
    max_depth: PositiveInt | None = None
    """The maximum depth of a tree; null: split until leaves are pure."""
    min_samples_leaf: PositiveInt = 1
    """The minimum number of training images in a leaf."""
    criterion: Criterion = "gini"
    """The quality of a split."""


class NearestNeighboursOptions(Options):
    """The supported options of `sklearn.neighbors.KNeighborsClassifier`."""

    later: ClassVar[frozenset[str]] = frozenset({"p"})

    n_neighbors: PositiveInt = 5
    """The number of neighbours."""
    weights: Literal["uniform", "distance"] = "uniform"
    """The weights of the neighbours."""
    p: Annotated[StrictFloat, Field(ge=1, le=20)] = 2.0
    """The power of the Minkowski distance. Larger powers of distances overflow or become zero."""


class SupportVectorMachineOptions(Options):
    """The supported options of `sklearn.svm.SVC`."""

    later: ClassVar[frozenset[str]] = frozenset({"degree", "coef0"})

    C: Positive = 1.0
    """The inverse of the strength of the regularization."""
    kernel: Literal["linear", "poly", "rbf", "sigmoid"] = "rbf"
    """The kernel."""
    gamma: Literal["scale", "auto"] | Positive = "scale"
    """The coefficient of the kernel, or how it follows from the data."""
    degree: PositiveInt = 3
    """The degree of the kernel poly."""
    coef0: StrictFloat = 0.0
    """The constant term of the kernels poly and sigmoid."""

    @model_validator(mode="after")
    def _check_kernel(self) -> "SupportVectorMachineOptions":
        if self.degree != 3 and self.kernel != "poly":
            raise ValueError(f"degree={self.degree} needs model.kernel=poly, not {self.kernel}")
        if self.coef0 and self.kernel not in ("poly", "sigmoid"):
            raise ValueError(f"coef0={self.coef0} needs model.kernel=poly or sigmoid, not {self.kernel}")
        return self


class LogisticRegressionOptions(Options):
    """The supported options of `sklearn.linear_model.LogisticRegression`."""

    later: ClassVar[frozenset[str]] = frozenset({"penalty", "solver"})

    C: Positive = 1.0
    """The inverse of the strength of the regularization."""
    max_iter: PositiveInt = 1000
    """The maximum number of iterations of the solver."""
    penalty: Literal["l2", "l1", "none"] = "l2"
    """The penalty on the weights; l1 needs model.solver=saga."""
    solver: Literal["lbfgs", "newton-cg", "sag", "saga"] = "lbfgs"  # those that fit all classes at once in every version
    """The solver."""

    @model_validator(mode="after")
    def _check_penalty(self) -> "LogisticRegressionOptions":
        if self.penalty == "l1" and self.solver != "saga":
            raise ValueError(f"penalty=l1 needs model.solver=saga, not {self.solver}")
        if self.penalty == "none" and self.C != 1.0:
            raise ValueError(f"C={self.C} has no effect with model.penalty=none; leave it out")
        return self


for _name, _factory, _options in (
    ("decision_tree", "sklearn.tree:DecisionTreeClassifier", DecisionTreeOptions),
    ("random_forest", "sklearn.ensemble:RandomForestClassifier", RandomForestOptions),
    ("nearest_neighbours", "sklearn.neighbors:KNeighborsClassifier", NearestNeighboursOptions),
    ("support_vector_machine", "sklearn.svm:SVC", SupportVectorMachineOptions),
    ("logistic_regression", "regioncount.models.classifiers:logistic_regression", LogisticRegressionOptions),
):
    register_model(_name, _factory, options=_options, kind="classifier")


class TwoLayerOptions(Options):
    """The options of the two-layer network of the theorem."""

    width: LargeCount = 200
    """The number of hidden units."""
    learning_rate: Positive = 0.1
    """The step size of gradient descent."""
    steps: LargeCount = 20000
    """The maximum number of gradient descent steps."""
    tolerance: Positive = 0.001
    """Training stops when the loss is below this value."""
    scale: Positive = 1.0
    """The standard deviation of the initial weights of the first layer."""


register_model("two_layer", "regioncount.models.two_layer:fit", options=TwoLayerOptions, kind="two_layer")
