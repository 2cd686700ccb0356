"""Each kind of model that people have is counted and measured right, or refused in one line, by each of four functions."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import regioncount as rc
from regioncount.errors import InputError

CLASSES, SHAPE, RESOLUTION = 4, (3, 32, 32), 9
FINE = 2000  # points of a line on which the regions of an exact count are found
LARGE = ("torchvision", "timm", "transformers")  # kinds that are counted exactly on short lines


def network(classes=CLASSES):
    torch.manual_seed(3)
    convolution, norm = nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_mean, -0.3, 0.3)
    return spread(nn.Sequential(convolution, norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, classes)).eval())


def spread(model):
    """Centre the logits of a random network, so that it predicts several classes."""
    with torch.no_grad():
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        last.bias.sub_(logits_of(model.eval()(inputs())).mean(0))
    return model


def logits_of(output):
    if isinstance(output, dict):
        return output["logits"]
    if isinstance(output, tuple) and not hasattr(output, "logits"):
        return output[0]
    return getattr(output, "logits", output)


def inputs(number=12):
    return torch.randn(number, *SHAPE, generator=torch.Generator().manual_seed(0))


class Returning(nn.Module):
    """A network that wraps its logits in another object."""

    def __init__(self, wrap, classes=CLASSES):
        super().__init__()
        self.network, self.wrap = network(classes), wrap

    def forward(self, images):
        return self.wrap(self.network(images))


def torchvision_model(name, **options):
    import torchvision

    torch.manual_seed(0)
    return spread(torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options))


def timm_model():
    torch.manual_seed(0)
    return spread(pytest.importorskip("timm").create_model("test_resnet", num_classes=CLASSES))


def hugging_face():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=CLASSES)
    return spread(transformers.AutoModelForImageClassification.from_config(config))


def lightning_module():
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, images):
            return self.network(images)

    return Module().eval()


def exported():
    batch = torch.export.Dim("batch", min=1, max=2**20)
    return torch.export.export(network(), (inputs(2),), dynamic_shapes=({0: batch},)).module()


def estimator(pipeline=False):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(random_state=0, max_depth=3)
    model = make_pipeline(StandardScaler(), tree) if pipeline else tree
    return model.fit(inputs(40).flatten(1).numpy(), np.arange(40) % CLASSES)


def jax_function():
    jax = pytest.importorskip("jax")
    weights = network()[4].weight.detach().numpy()

    @jax.jit
    def logits(images):
        return jax.numpy.tanh(images.reshape(len(images), -1)[:, :64]) @ weights.T

    return lambda images: torch.from_numpy(np.array(logits(images.detach().cpu().numpy())))


def keras_like():
    """A model as of Keras: a callable of arrays (B, H, W, C) that returns arrays, and refuses other shapes."""

    class Model:
        def __call__(self, images):
            if images.shape[-1] != 3:
                raise ValueError(f"expected images of shape (None, 32, 32, 3), found {tuple(images.shape)}")
            return np.zeros((len(images), CLASSES))

    return Model()


def detector():
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).eval()


def segmentation():
    return nn.Sequential(nn.Conv2d(3, CLASSES, 1)).eval()


def call(model, images):
    return model(images)


def call_for_labels(model, images):
    return model(images).argmax(1)


def half(dtype):
    return network().to(dtype)


OPERATIONS = ("grid", "exact", "measure", "label_planes")
WORKS = dict.fromkeys(OPERATIONS)
NOT_EXACT = {name: None for name in OPERATIONS if name != "exact"}  # exact counts of the other kinds take long
TRACED = {**WORKS, "exact": "an exact count cannot trace the network; use method=auto"}


def refused(message):
    return dict.fromkeys(OPERATIONS, message)


FUNCTION = {**WORKS, "exact": "it needs a torch module"}
KINDS = {
    "module": (network, WORKS),
    "torchvision": (functools.partial(torchvision_model, "resnet18"), NOT_EXACT),
    "torchvision GoogLeNet with auxiliary outputs": (
        functools.partial(torchvision_model, "googlenet", aux_logits=True, init_weights=False),
        NOT_EXACT,
    ),
    "timm": (timm_model, WORKS),
    "transformers": (hugging_face, WORKS),
    "Lightning": (lightning_module, WORKS),
    "torch.compile": (lambda: torch.compile(network(), backend="eager"), WORKS),
    "DataParallel": (lambda: nn.DataParallel(network()), WORKS),
    "AveragedModel": (lambda: AveragedModel(network()), WORKS),
    "TorchScript": (lambda: torch.jit.script(network()), TRACED),
    "torch.export": (exported, TRACED),
    "float16": (lambda: half(torch.float16), WORKS),
    "bfloat16": (lambda: half(torch.bfloat16), WORKS),
    "one logit": (lambda: network(1), WORKS),
    "dictionary": (lambda: Returning(lambda logits: {"logits": logits}), WORKS),
    "tuple": (lambda: Returning(lambda logits: (logits, logits.sum())), WORKS),
    "function": (lambda: functools.partial(call, network()), FUNCTION),
    "function of labels": (lambda: functools.partial(call_for_labels, network()), FUNCTION),
    "scikit-learn estimator": (estimator, FUNCTION),
    "scikit-learn pipeline": (functools.partial(estimator, True), FUNCTION),
    "JAX": (jax_function, FUNCTION),
    "Keras": (keras_like, refused("expected images of shape")),
    "detector": (detector, refused("the model returned a list without logits")),
    "segmentation": (segmentation, refused("the model returned .* of shape")),
    "features": (
        lambda: Returning(lambda logits: {"last_hidden_state": logits[:, None], "pooler_output": logits}),
        refused("features without logits.*AutoModelForImageClassification"),
    ),
    "class": (lambda: nn.Linear, refused("the model is the class Linear")),
    "text": (lambda: "resnet18", refused("the model is str")),
    "file": (lambda: {"state_dict": {}}, refused("the model is dict")),
}


def vertices(number, corners, length=1.0):
    images = inputs(number * corners).view(number, corners, *SHAPE)
    return images[:, :1] + length * (images - images[:, :1])


def lines(kind, operation):
    return vertices(2, 2, 0.05 if operation == "exact" and kind.startswith(LARGE) else 1.0)


def targets(kind):
    return torch.arange(12) % (2 if kind == "one logit" else CLASSES)


def run(kind, operation, model):
    if operation == "measure":
        data = inputs(), targets(kind)
        return rc.measure(model, data, ["accuracy"], test=data)["train_accuracy"]
    if operation == "label_planes":
        return rc.regions.label_planes(model, vertices(1, 3), RESOLUTION)[0]
    resolution = RESOLUTION if operation == "grid" else None
    return rc.count_regions(model, lines(kind, operation), resolution=resolution, method=operation).counts


def labels_of(kind, model, points):
    """Return the labels of points, evaluated without the library."""
    if kind.startswith("scikit-learn"):
        return model.predict(points.flatten(1).numpy())
    if kind.startswith(("float16", "bfloat16")):
        model = model.float()
    with torch.no_grad():
        output = logits_of(model(points))
    if output.dim() == 1:
        return output.numpy()
    return (output[:, 0] > 0).long().numpy() if output.shape[1] == 1 else output.argmax(1).numpy()


def along(line, number):
    steps = torch.linspace(0, 1, number, dtype=torch.float64).view(-1, 1, 1, 1)
    return (line[0] + steps * (line[1] - line[0])).float()


def expected_result(kind, operation, model):
    if operation == "measure":
        return (labels_of(kind, model, inputs()) == targets(kind).numpy()).mean()
    if operation == "label_planes":
        (triangle,) = vertices(1, 3)
        weights, _ = rc.regions.plane_grid(triangle, RESOLUTION)
        points = (torch.from_numpy(weights) @ triangle.double().flatten(1)).float().view(-1, *SHAPE)
        return labels_of(kind, model, points).reshape(1, RESOLUTION, RESOLUTION)
    number = RESOLUTION if operation == "grid" else FINE // 20 if kind.startswith(LARGE) else FINE
    found = [labels_of(kind, model, along(line, number)) for line in lines(kind, operation)]
    return np.array([1 + np.count_nonzero(np.diff(labels)) for labels in found])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_model_is_evaluated_right_or_refused_in_one_line(kind):
    build, cells = KINDS[kind]
    for operation, message in cells.items():
        model = build()
        if message is None:
            result = run(kind, operation, model)
            np.testing.assert_array_equal(result, expected_result(kind, operation, model), err_msg=operation)
            continue
        # An exception that the model itself raises, as that of Keras, is not caught.
        with pytest.raises(ValueError if kind == "Keras" else InputError, match=message) as refused:
            run(kind, operation, model)
        assert "\n" not in str(refused.value)
