"""Each kind of model that people have is counted and measured right, or refused in one line, by each of four functions."""

import functools
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import regioncount as rc
from regioncount.errors import InputError

CLASSES, SHAPE, RESOLUTION = 4, (3, 32, 32), 9
ONE_LINE = re.compile(r"[^\n]{10,}")


def network(classes=CLASSES):
    torch.manual_seed(3)
    convolution, norm = nn.Conv2d(3, 4, 8, stride=8), nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_mean, -0.3, 0.3)
    last = nn.Linear(64, classes)
    return nn.Sequential(convolution, norm, nn.ReLU(), nn.Flatten(), last).eval()


def spread(model):
    """Scale the last layer of a random network and centre its logits, so that it predicts several classes."""
    with torch.no_grad():
        last = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
        if last.bias is not None:
            last.bias.zero_()
        logits = logits_of(model.eval()(inputs()))
        if last.bias is not None and logits.shape[1] == len(last.bias):
            last.bias.sub_(logits.mean(0))
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


def half(dtype):
    return network().to(dtype)


OPERATIONS = ("grid", "exact", "measure", "label_planes")
WORKS = dict.fromkeys(OPERATIONS)
FUNCTION = {**WORKS, "exact": "it needs a torch module"}
COMPILED_IN = "cannot"
KINDS = {
    "module": (network, WORKS),
    "torchvision": (functools.partial(torchvision_model, "squeezenet1_1"), WORKS),
    "torchvision GoogLeNet with auxiliary outputs": (
        functools.partial(torchvision_model, "googlenet", aux_logits=True, init_weights=False),
        WORKS,
    ),
    "timm": (timm_model, WORKS),
    "transformers": (hugging_face, WORKS),
    "Lightning": (lightning_module, WORKS),
    "torch.compile": (lambda: torch.compile(network()), WORKS),
    "DataParallel": (lambda: nn.DataParallel(network()), WORKS),
    "AveragedModel": (lambda: AveragedModel(network()), WORKS),
    "TorchScript": (lambda: torch.jit.script(network()), WORKS),
    "torch.export": (exported, WORKS),
    "float16": (lambda: half(torch.float16), WORKS),
    "bfloat16": (lambda: half(torch.bfloat16), WORKS),
    "one logit": (lambda: network(1), WORKS),
    "dictionary": (lambda: Returning(lambda logits: {"logits": logits}), WORKS),
    "tuple": (lambda: Returning(lambda logits: (logits, logits.sum())), WORKS),
    "function": (lambda: lambda images, model=network(): model(images), FUNCTION),
    "function of labels": (lambda: lambda images, model=network(): model(images).argmax(1), FUNCTION),
    "scikit-learn estimator": (estimator, FUNCTION),
    "scikit-learn pipeline": (functools.partial(estimator, True), FUNCTION),
    "JAX": (jax_function, FUNCTION),
    "Keras": (keras_like, WORKS),
    "detector": (detector, WORKS),
    "segmentation": (segmentation, WORKS),
    "class": (lambda: nn.Linear, WORKS),
    "text": (lambda: "resnet18", WORKS),
    "file": (lambda: {"state_dict": {}}, WORKS),
}


def vertices(number, corners):
    images = inputs(number * corners).view(number, corners, *SHAPE)
    return images[:, :1] + 0.05 * (images - images[:, :1])  # short, so that exact counts are fast


def run(operation, model):
    if operation == "measure":
        data = inputs(), torch.arange(12) % CLASSES
        return rc.measure(model, data, ["accuracy"], test=data)["train_accuracy"]
    if operation == "label_planes":
        return rc.regions.label_planes(model, vertices(1, 3), RESOLUTION)[0]
    resolution = RESOLUTION if operation == "grid" else None
    return rc.count_regions(model, vertices(2, 2), resolution=resolution, method=operation).counts


if __name__ == "__main__":
    import sys, time

    for kind in KINDS:
        if sys.argv[1:] and not any(a in kind for a in sys.argv[1:]):
            continue
        for op in OPERATIONS:
            t = time.time()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = KINDS[kind][0]()
                    r = run(op, model)
                if op == "label_planes":
                    r = np.unique(r)
                print(kind, "|", op, "| ok", r, f"{time.time() - t:.1f}")
            except pytest.skip.Exception as e:
                print(kind, "skip")
                break
            except BaseException as e:
                print(kind, "|", op, "|", type(e).__name__, str(e)[:300].replace("\n", "\\n"), f"{time.time() - t:.1f}")
