"""Random models that are awkward: shared, in-place, parametrized, stateful or random modules, and unusual outputs."""

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from random_graphs import Function, Shape, with_statistics
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

WIDTH = 8


def base(r: random.Random, shape: Shape, *extra: nn.Module, inplace: bool = False) -> nn.Sequential:
    """Return a perceptron with `extra` between its first layer and its activation."""
    inputs = torch.Size(shape).numel()
    first, last = nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, r.choice([3, 4]))
    return nn.Sequential(nn.Flatten(), first, *extra, nn.ReLU(inplace), nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.1), last)


def after(function: Callable[..., Any]) -> Callable[[random.Random, Shape], nn.Module]:
    """Return a builder of models that apply a function to the logits."""
    return lambda r, shape: nn.Sequential(base(r, shape), Function(function))


def inside(function: Callable[[Tensor], Tensor]) -> Callable[[random.Random, Shape], nn.Module]:
    """Return a builder of models that apply a function to the first hidden values (B, WIDTH)."""
    return lambda r, shape: base(r, shape, Function(function))


class Shared(nn.Module):
    """A network that uses one layer `times` times."""

    def __init__(self, r: random.Random, shape: Shape, times: int) -> None:
        super().__init__()
        self.network = base(r, shape)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.times = times

    def forward(self, inputs: Tensor) -> Tensor:
        values = self.network[1](inputs.flatten(1))
        for _ in range(self.times):
            values = F.relu(self.layer(values))
        return self.network[-1](values)


class Counter(nn.Module):
    """A module that counts its calls, and may return something that depends on the count."""

    def __init__(self, strength: float, every: int = 1) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.strength, self.every = strength, every

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return values + self.strength * (self.calls // self.every).to(values)


class PlainCounter(nn.Module):
    """A module whose output depends on a Python number that it changes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return values + 0.3 * self.calls


class Replaced(nn.Module):
    """A module that replaces its buffer instead of writing to it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(WIDTH))

    def forward(self, values: Tensor) -> Tensor:
        self.seen = 0.9 * self.seen + 0.1 * values.mean(0)
        return values


class ChangedWeight(nn.Module):
    """A layer that changes its weight in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            self.layer.weight.mul_(0.99)
        return self.layer(values)


class Resized(nn.Module):
    """A module that changes the size of its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, values: Tensor) -> Tensor:
        self.seen.data = torch.cat([self.seen, self.seen.new_zeros(1)])
        return values


def shared_convolution(r: random.Random, shape: Shape) -> nn.Module:
    convolution, norm = nn.Conv2d(shape[0], shape[0], 3, padding=1), with_statistics(nn.BatchNorm2d(shape[0]))
    head = nn.Linear(torch.Size(shape).numel(), 3)
    return nn.Sequential(convolution, norm, nn.ReLU(), convolution, nn.ReLU(), nn.Flatten(), head)


def shared_norm(r: random.Random, shape: Shape) -> nn.Module:
    norm = with_statistics(nn.BatchNorm2d(4))
    first, second = nn.Conv2d(shape[0], 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    head = nn.Linear(4 * shape[1] * shape[2], 3)
    return nn.Sequential(first, norm, nn.ReLU(), second, norm, nn.ReLU(), nn.Flatten(), head)


def with_layer(change: Callable[[nn.Module], Any]) -> Callable[[random.Random, Shape], nn.Module]:
    """Return a builder of perceptrons of which some layers are changed, such as by weight norm."""

    def build(r: random.Random, shape: Shape) -> nn.Module:
        model = base(r, shape)
        for index in r.sample([1, 3, 5], r.choice([1, 2, 3])):
            change(model[index])
        model(torch.randn(4, *shape))
        return model

    return build


def pruned(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", amount=0.4)
    if random.Random(layer.weight.numel()).random() < 0.5:
        prune.random_unstructured(layer, "weight", amount=2)


def ties(r: random.Random, shape: Shape) -> nn.Module:
    model = base(r, shape)
    with torch.no_grad():
        model[-1].weight[2], model[-1].bias[2] = model[-1].weight[0], model[-1].bias[0]
    return model


def scaled(exponent: float) -> Callable[[random.Random, Shape], nn.Module]:
    return after(lambda logits: logits * 10.0**exponent)


def scaled_inside(exponent: float) -> Callable[[random.Random, Shape], nn.Module]:
    return lambda r, shape: nn.Sequential(
        nn.Flatten(), Function(lambda x: x * 10.0**exponent), base(r, shape), Function(lambda x: x * 10.0**-exponent)
    )


def masked(logits: Tensor) -> Tensor:
    mask = torch.zeros(logits.shape[1]).to(logits)
    mask[1] = -torch.inf
    return logits + mask


class Output(dict):
    """An output with the attribute `logits`."""

    @property
    def logits(self) -> Tensor:
        return self["logits"]


class Branch(nn.Module):
    """A network with another layer for about half of all batches."""

    def __init__(self, r: random.Random, shape: Shape) -> None:
        super().__init__()
        self.one, self.other = base(r, shape), base(random.Random(1), shape)
        self.classes = min(self.one[-1].out_features, self.other[-1].out_features)

    def forward(self, inputs: Tensor) -> Tensor:
        network = self.one if hash(inputs.sum().item()) % 2 else self.other
        return network(inputs)[:, : self.classes]


def sigmoid_gate(r: random.Random, shape: Shape) -> nn.Module:
    return base(r, shape, Function(lambda x: x * torch.sigmoid(x)), nn.LayerNorm(WIDTH))


def no_statistics(r: random.Random, shape: Shape) -> nn.Module:
    return base(r, shape, nn.BatchNorm1d(WIDTH, track_running_stats=False))


Builder = Callable[[random.Random, Shape], nn.Module]

# Functions of each input, written in an awkward way.
FUNCTIONS: dict[str, Builder] = {
    "a layer used twice": lambda r, shape: Shared(r, shape, 2),
    "a layer used three times": lambda r, shape: Shared(r, shape, 3),
    "an unused layer": lambda r, shape: Shared(r, shape, 0),
    "an activation in place": lambda r, shape: base(r, shape, inplace=True),
    "first in place": lambda r, shape: nn.Sequential(nn.ReLU(inplace=True), base(r, shape)),
    "first in place, by a function": lambda r, shape: nn.Sequential(Function(lambda x: x.mul_(0.5).abs_()), base(r, shape)),
    "last in place": after(lambda logits: logits.clamp_(-0.2, 0.3)),
    "in place through a view": inside(lambda x: (x[:, ::2].mul_(-1), x)[1]),
    "in place on a branch": inside(lambda x: x + x.clone().relu_()),
    "weight norm": with_layer(parametrizations.weight_norm),
    "spectral norm": with_layer(parametrizations.spectral_norm),
    "orthogonal": with_layer(parametrizations.orthogonal),
    "weight norm as a hook": with_layer(nn.utils.weight_norm),
    "spectral norm as a hook": with_layer(nn.utils.spectral_norm),
    "pruned": with_layer(pruned),
    "sigmoid": sigmoid_gate,
    "softmax": after(lambda logits: logits.softmax(1)),
    "log softmax": after(lambda logits: logits.log_softmax(1)),
    "floor division": inside(lambda x: torch.div(x, 0.5, rounding_mode="floor")),
    "floor": inside(lambda x: x // 0.5),
    "remainder": inside(lambda x: x % 0.7),
    "round": inside(torch.round),
    "sign": inside(torch.sign),
    "GELU": inside(F.gelu),
    "tanh": inside(torch.tanh),
    "square": inside(lambda x: x * x),
    "layer norm": lambda r, shape: base(r, shape, nn.LayerNorm(WIDTH)),
    "group norm": lambda r, shape: base(r, shape, nn.GroupNorm(2, WIDTH)),
    "normalized": inside(lambda x: F.normalize(x, dim=1)),
    "attention": inside(lambda x: (x.view(-1, 2, 4) @ x.view(-1, 4, 2)).flatten(1).repeat(1, 2)),
    "where of each input": inside(lambda x: torch.where(x.sum(1, keepdim=True) > 0, x, -x)),
    "a constant made in forward": inside(lambda x: x + torch.arange(WIDTH).to(x) / 4),
    "the device as a string": inside(lambda x: x + torch.ones(WIDTH, device=str(x.device)).to(x.dtype)),
    "transposed twice": inside(lambda x: x.T.T),
    "a transposed product": inside(lambda x: (torch.ones(WIDTH, WIDTH).to(x).triu() @ x.T).T),
    "a stack": inside(lambda x: torch.stack([x[:, index] for index in range(WIDTH)]).T),
    "a stack over the batch": inside(lambda x: torch.stack([row.relu() for row in x])),
    "detached": inside(lambda x: x.detach()),
    "converted to float64": inside(lambda x: x.double().sin().to(x.dtype)),
    "huge logits": scaled(20),
    "tiny logits": scaled(-20),
    "logits beyond float32": scaled(39),
    "huge values inside": scaled_inside(18),
    "tiny values inside": scaled_inside(-25),
    "a class that is masked": after(masked),
    "ties": ties,
    "constant logits": after(lambda logits: logits * 0 + 1),
    "NaN at some inputs": after(lambda logits: logits + 0 * (logits[:, :1] + 0.5).log()),
    "an output with logits": after(lambda logits: Output(logits=logits, state=None)),
    "labels": after(lambda logits: logits.argmax(1)),
    "int32 labels": after(lambda logits: logits.argmax(1).int()),
    "huge labels": after(lambda logits: logits.argmax(1) * 2**40 - 2**41),
    "labels as an array": after(lambda logits: logits.argmax(1).numpy()),
    "integer logits": after(lambda logits: (4 * logits).long()),
    "bfloat16 logits": after(lambda logits: logits.bfloat16()),
}

IMAGES: dict[str, Builder] = {"a shared convolution": shared_convolution, "a shared batch norm": shared_norm}

# Models that are not functions of each input, or whose outputs are neither logits nor labels.
REFUSED: dict[str, Builder] = {
    "dropout left on": inside(lambda x: F.dropout(x, 0.2)),
    "feature dropout left on": inside(lambda x: F.dropout1d(x.unsqueeze(0), 0.2).squeeze(0)),
    "noise": inside(lambda x: x + 0.1 * torch.randn_like(x)),
    "a random constant": inside(lambda x: x + 0.1 * torch.randn(WIDTH).to(x)),
    "a random sign": inside(lambda x: x * torch.sign(torch.rand(()).to(x) - 0.5)),
    "random ReLU": inside(lambda x: -F.rrelu(x, training=True)),
    "a counter that changes the output": lambda r, shape: base(r, shape, Counter(0.3)),
    "a counter that rarely changes the output": lambda r, shape: base(r, shape, Counter(3.0, every=40)),
    "a counter that does not change the output": lambda r, shape: base(r, shape, Counter(0)),
    "a Python counter": lambda r, shape: base(r, shape, PlainCounter()),
    "a replaced buffer": lambda r, shape: base(r, shape, Replaced()),
    "a resized buffer": lambda r, shape: base(r, shape, Resized()),
    "a changed weight": lambda r, shape: base(r, shape, ChangedWeight()),
    "no running statistics": no_statistics,
    "the first of the batch": inside(lambda x: x + x[0]),
    "the next of the batch": inside(lambda x: x + x.roll(1, 0)),
    "sorted over the batch": inside(lambda x: x.sort(dim=0).values),
    "the mean of the batch": inside(lambda x: x - x.mean(0)),
    "the maximum of the batch": inside(lambda x: x.amax(0) - x),
    "the largest value of the batch": inside(lambda x: x / x.abs().max()),
    "a product with the transpose": inside(lambda x: x @ x.T @ x),
    "the batch size": inside(lambda x: x / len(x)),
    "softmax over the batch": inside(lambda x: x.softmax(0)),
    "cumulated over the batch": inside(lambda x: x.cumsum(0)),
    "flipped batch": inside(lambda x: x.flip(0)),
    "a stack of the batch": inside(lambda x: torch.stack([x[0], *x[:-1]])),
    "reshaped across the batch": inside(lambda x: x.reshape(WIDTH, -1).T.contiguous()),
    "a branch on the whole batch": Branch,
    "a tuple": after(lambda logits: (logits, logits)),
    "a dictionary": after(lambda logits: {"out": logits}),
    "None": after(lambda logits: None),
    "one logit": after(lambda logits: logits[:, :1]),
    "a vector": after(lambda logits: logits[:, 0]),
    "complex logits": after(lambda logits: logits + 1j),
    "logits of pixels": after(lambda logits: logits[..., None].expand(-1, -1, 2)),
    "boolean logits": after(lambda logits: logits > 0),
    "all logits NaN": after(lambda logits: logits * torch.nan),
    "logits of another batch size": after(lambda logits: logits[:1]),
    "sparse logits": after(lambda logits: logits.to_sparse()),
}
