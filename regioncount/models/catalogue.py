"""The models by name: what builds each one, of which kind it is, and which options it takes.

This module imports no torch and no scikit-learn, so that configurations can be read without them. Names of scikit-learn's
options are scikit-learn's.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from regioncount.options import Count, Integer, Name, Number, Options
from regioncount.registry import register_model

MAX_SIZE = 2**16  # of widths, depths, classes and images, in pixels

Size = Annotated[Integer, Field(ge=1, le=MAX_SIZE)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Positive = Annotated[Number, Field(gt=0)]
Steps = Annotated[Integer, Field(ge=1, le=10**7)]


def _width(default: int) -> type[Options]:
    """Return the options of a convolutional network: the channels of its first convolution, with which all others scale."""
    fields: dict[str, Any] = {"width": (Size, default)}
    return create_model("ConvolutionalOptions", __base__=Options, **fields)


for _name, _factory, _default in (
    ("resnet18", "resnet:resnet18", 64),
    ("resnet34", "resnet:resnet34", 64),
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
    register_model(_name, f"regioncount.models.{_factory}", options=_width(_default))


class PerceptronOptions(Options):
    """The options of a multilayer perceptron."""

    width: Size = 128
    """Units of a hidden layer."""
    depth: Size = 2
    """Hidden layers."""


class TransformerOptions(Options):
    """The options of a vision transformer."""

    patch_size: Size = 4
    """Height and width of a patch, in pixels."""
    width: Size = 512
    """The dimension of a token."""
    depth: Size = 6
    """Encoder layers."""
    heads: Size = 8
    mlp_width: Size = 512
    """Hidden units of the perceptron in each layer."""
    dropout: Fraction = 0.1


class TorchvisionOptions(Options):
    """The options of a network of torchvision."""

    architecture: Name = "resnet18"


register_model("mlp", "regioncount.models.mlp:mlp", options=PerceptronOptions)
register_model("vision_transformer", "regioncount.models.vision_transformer:vision_transformer", options=TransformerOptions)
register_model("torchvision", "regioncount.models.torchvision:torchvision_classifier", options=TorchvisionOptions)


class DecisionTreeOptions(Options):
    """The options of sklearn.tree.DecisionTreeClassifier that can be set."""

    max_depth: Count | None = None
    min_samples_leaf: Count = 1


class RandomForestOptions(DecisionTreeOptions):
    """The options of sklearn.ensemble.RandomForestClassifier that can be set."""

    n_estimators: Count = 100


class NearestNeighboursOptions(Options):
    """The options of sklearn.neighbors.KNeighborsClassifier that can be set."""

    n_neighbors: Count = 5
    weights: Literal["uniform", "distance"] = "uniform"


class SupportVectorMachineOptions(Options):
    """The options of sklearn.svm.SVC that can be set."""

    C: Positive = 1.0
    kernel: Literal["linear", "poly", "rbf", "sigmoid"] = "rbf"
    gamma: Literal["scale", "auto"] | Positive = "scale"


class LogisticRegressionOptions(Options):
    """The options of sklearn.linear_model.LogisticRegression that can be set."""

    C: Positive = 1.0
    max_iter: Count = 1000


for _name, _factory, _options in (
    ("decision_tree", "sklearn.tree:DecisionTreeClassifier", DecisionTreeOptions),
    ("random_forest", "sklearn.ensemble:RandomForestClassifier", RandomForestOptions),
    ("nearest_neighbours", "sklearn.neighbors:KNeighborsClassifier", NearestNeighboursOptions),
    ("support_vector_machine", "sklearn.svm:SVC", SupportVectorMachineOptions),
    ("logistic_regression", "sklearn.linear_model:LogisticRegression", LogisticRegressionOptions),
):
    register_model(_name, _factory, options=_options, kind="classifier")


class TwoLayerOptions(Options):
    """The options of the two-layer network of the theorem."""

    width: Steps = 200
    """Hidden units."""
    learning_rate: Positive = 0.1
    steps: Steps = 20000
    """Steps of gradient descent at most."""
    tolerance: Positive = 0.001
    """The loss at which training ends."""
    scale: Positive = 1.0
    """Standard deviation of the first layer's initial weights."""


register_model("two_layer", "regioncount.models.two_layer:fit", options=TwoLayerOptions, kind="two_layer")
