"""Random classifiers built from common operations, and from rarer ones, some of which exact counting must refuse.

A block is a function of a random source and the shape of its input that returns a module, or None where it does not fit. The
shape of its output is read from an evaluation.
"""

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, ...]
OTHER_SHARE = 0.3  # of the rarer operations, in the graphs that have them


class Source(random.Random):
    """A random source that also draws rarer operations, if `others` is set."""

    others = False

    def pick(self, supported: list[nn.Module], others: list[nn.Module]) -> nn.Module:
        return self.choice(others if self.others and others and self.random() < OTHER_SHARE else supported)


Block = Callable[[Source, Shape], nn.Module | None]


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.inner = nn.ModuleList(modules)

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values, *self.inner)


class Scale(nn.Module):
    """A product with a learned vector, of the shape of one input."""

    def __init__(self, shape: Shape, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 + torch.rand(shape))
        self.operation = operation

    def forward(self, values: Tensor) -> Tensor:
        return self.operation(values, self.weight)


def output_shape(module: nn.Module, shape: Shape) -> Shape:
    with torch.no_grad():
        return tuple(module.eval()(torch.zeros(2, *shape)).shape[1:])


def with_statistics(norm: nn.Module) -> nn.Module:
    """Give batch normalization random running statistics, weights and biases."""
    for name, tensor in [*norm.named_buffers(), *norm.named_parameters()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0) if name in {"running_var", "weight"} else nn.init.normal_(tensor)
    return norm.eval()


def activation(r: Source, shape: Shape) -> nn.Module:
    low = r.uniform(-1, 0)
    supported = [
        nn.ReLU(),
        nn.ReLU(),
        nn.LeakyReLU(r.choice([0.01, 0.3, -0.2])),
        nn.PReLU(r.choice([1, shape[0]])),
        nn.Hardtanh(low, low + 1.5),
        nn.ReLU6(),
        Function(torch.abs),
        Function(lambda x: x.clamp(min=low)),
        Function(lambda x: x.clamp(max=0.4)),
        Function(lambda x: torch.clamp(x, low, 0.7)),
        Function(lambda x: F.relu(x) - 2 * F.relu(x - 1)),
        Function(lambda x: x.relu_()),
        Function(lambda x: torch.add(x.abs(), x, alpha=-0.5)),
    ]
    others = [
        nn.RReLU(),
        nn.Hardsigmoid(),
        nn.Hardswish(),
        nn.Softshrink(0.3),
        nn.Hardshrink(0.3),
        nn.Threshold(0.1, 0.1),
        nn.Threshold(0.1, -0.5),
        Function(lambda x: torch.clamp_min(x, 0.1)),
        Function(lambda x: x.clamp(x.detach() * 0.5)),
        Function(lambda x: torch.where(x > 0, x, 0.2 * x)),
        Function(lambda x: torch.maximum(x, 0.3 * x)),
        Function(lambda x: torch.minimum(x, torch.zeros_like(x)) + 0.5 * x),
        Function(lambda x: torch.max(x, -x)),
        Function(lambda x: x * (x > 0)),
        Function(lambda x: torch.lerp(x, x.abs(), 0.5)),
    ]
    return r.pick(supported, others)


def elementwise(r: Source, shape: Shape) -> nn.Module:
    number = r.choice([2.0, -1.5, 0.5])
    supported = [
        Function(lambda x: x * number),
        Function(lambda x: number - x),
        Function(lambda x: -x),
        Function(lambda x: x / number),
        Function(lambda x: torch.add(x, x, alpha=number)),
        Function(lambda x: torch.sub(x, 0.5, alpha=number)),
        Function(lambda x: torch.rsub(x, 1.0, alpha=number)),
        Function(lambda x: x - x.mean(1, keepdim=True)),
        Function(lambda x: x + x.sum(1, keepdim=True)),
        Scale(shape, torch.mul),
        Scale(shape, torch.add),
        Scale(shape, torch.div),
        Scale(shape, torch.sub),
        nn.Dropout(0.5),
        nn.Identity(),
    ]
    others = [
        Function(lambda x: torch.addcmul(x, x, torch.full_like(x, 0.5))),
        Function(lambda x: x - x.amax(1, keepdim=True)),
        Function(lambda x: x + x.max(dim=1, keepdim=True).values),
        Function(lambda x: x.cumsum(1)),
        Function(lambda x: x.flip(1)),
        Function(lambda x: x.roll(1, 1)),
        Function(lambda x: x.sort(dim=1).values),
    ]
    return r.pick(supported, others)


def vector_rearrangement(r: Source, shape: Shape) -> nn.Module | None:
    (width,) = shape
    if width < 4 or width % 2:
        return Function(lambda x: F.pad(x, (1, 1), value=0.5)) if width < 8 else None
    half = width // 2
    supported = [
        Function(lambda x: x[:, : width - 1]),
        Function(lambda x: x[:, ::2]),
        Function(lambda x: x.narrow(1, 1, half)),
        Function(lambda x: torch.add(*x.chunk(2, 1))),
        Function(lambda x: torch.sub(*x.split(half, 1))),
        Function(lambda x: torch.stack(x.split([half, half], 1), 1).sum(1)),
        Function(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
        Function(lambda x: x.view(-1, 2, half).transpose(1, 2).reshape(-1, width)),
        Function(lambda x: x.reshape(len(x), half, 2).mean(2)),
        Function(lambda x: x.unflatten(1, (half, 2)).permute(0, 2, 1).flatten(1)),
        Function(lambda x: F.avg_pool1d(x.unsqueeze(1), 3, 1, 1).squeeze(1)),
        Function(lambda x: x.unbind(1)[0].unsqueeze(1) + x),
        Function(lambda x: x[:, 0, None] - x),
    ]
    others = [
        Function(lambda x: x[:, [0, 2, 1, 3]]),
        Function(lambda x: torch.maximum(*x.chunk(2, 1))),
        Function(lambda x: F.max_pool1d(x.unsqueeze(1), 2).squeeze(1)),
        Function(lambda x: torch.einsum("bi,bj->bi", x, torch.ones_like(x))),
        Function(lambda x: F.glu(x, 1)),
    ]
    return r.pick(supported, others)


def linear(r: Source, shape: Shape) -> nn.Module:
    return nn.Linear(shape[-1], r.choice([4, 6, 8, 10]), bias=r.random() < 0.8)


def vector_norm(r: Source, shape: Shape) -> nn.Module:
    return with_statistics(nn.BatchNorm1d(shape[0], affine=r.random() < 0.7))


def convolution(r: Source, shape: Shape) -> nn.Module | None:
    channels, size = shape[0], min(shape[1:])
    kernel, dilation = r.choice([1, 2, 3]), r.choice([1, 1, 2])
    padding = r.choice([0, 1])
    if size + 2 * padding < dilation * (kernel - 1) + 1 or (padding and size < 2):
        return None
    groups = r.choice([1, channels]) if channels > 1 else 1
    outputs = groups * r.choice([1, 2]) if groups > 1 else r.choice([2, 4])
    if outputs > 8:
        return None
    mode = r.choice(["reflect", "replicate", "circular"]) if r.others and r.random() < 0.3 else "zeros"
    options = {"stride": r.choice([1, 1, 2]), "padding": padding, "dilation": dilation, "groups": groups}
    return nn.Conv2d(channels, outputs, kernel, **options, bias=r.random() < 0.7, padding_mode=mode)


def transposed_convolution(r: Source, shape: Shape) -> nn.Module | None:
    return nn.ConvTranspose2d(shape[0], 2, 2, stride=r.choice([1, 2])) if r.others and max(shape[1:]) <= 4 else None


def image_norm(r: Source, shape: Shape) -> nn.Module:
    kind = nn.InstanceNorm2d if r.others and r.random() < 0.2 else nn.BatchNorm2d
    return with_statistics(kind(shape[0], track_running_stats=True, affine=r.random() < 0.7))


def pooling(r: Source, shape: Shape) -> nn.Module | None:
    if min(shape[1:]) < 3:
        return None
    padding = r.choice([0, 0, 1])
    supported = [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, padding=padding),
        nn.MaxPool2d(2, stride=1, dilation=2),
        nn.AvgPool2d(2, ceil_mode=r.random() < 0.5),
        nn.AvgPool2d(3, 2, padding, count_include_pad=r.random() < 0.5),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d(r.choice([1, 2, 3])),
        Function(lambda x: -F.max_pool2d(-x, 2)),
    ]
    return r.pick(supported, [nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveMaxPool2d(2), nn.LPPool2d(2, 2)])


def image_rearrangement(r: Source, shape: Shape) -> nn.Module | None:
    channels, height, width = shape
    if min(height, width) < 2 or height * width * channels > 200:
        return None
    mode = r.choice(["nearest", "bilinear", "area"])
    supported = [
        nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=r.random() < 0.5),
        nn.Upsample(scale_factor=(1, 2)),
        Function(lambda x: F.interpolate(x, size=(3, 4), mode=mode)),
        nn.ZeroPad2d(1),
        nn.ConstantPad2d((0, 1, 1, 0), 0.3),
        nn.ZeroPad2d(-1 if min(height, width) > 2 else 0),
        nn.Dropout2d(),
        Function(lambda x: x.permute(0, 1, 3, 2)),
        Function(lambda x: x.transpose(2, 3).contiguous()),
        Function(lambda x: x.permute(0, 3, 1, 2)),
        Function(lambda x: x[:, :, 1:, :-1]),
        Function(lambda x: x[..., ::2]),
        Function(lambda x: x[:, :1] + x),
        Function(lambda x: torch.cat([x, x.mean(1, keepdim=True)], 1)),
        Function(lambda x: x.mean((2, 3), keepdim=True) + x),
        Function(lambda x: x[:, :, -1:].expand(-1, -1, height, -1) - x),
    ]
    if channels % 4 == 0:
        supported += [nn.PixelShuffle(2), nn.ChannelShuffle(2)]
    others = [
        nn.PixelUnshuffle(2) if height % 2 == width % 2 == 0 else nn.Identity(),
        nn.ReflectionPad2d(1),
        nn.ReplicationPad2d((1, 0, 0, 1)),
        nn.CircularPad2d(1),
        Function(lambda x: F.unfold(x, 2).unsqueeze(1)),
        Function(lambda x: F.max_pool1d(x.flatten(2), 2).unsqueeze(2)),
        Function(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")),
    ]
    return r.pick(supported, others)


def to_image(r: Source, shape: Shape) -> nn.Module | None:
    return nn.Unflatten(1, (1, 2, shape[0] // 2)) if shape[0] % 2 == 0 else None


def to_vector(r: Source, shape: Shape) -> nn.Module:
    head = r.choice(
        [nn.Flatten(), nn.Flatten(), Function(lambda x: x.mean((2, 3))), Function(lambda x: x.flatten(2).sum(2))]
    )
    return nn.Sequential(head, linear(r, output_shape(head, shape)))


VECTOR_BLOCKS: list[Block] = [linear, linear, activation, activation, activation, elementwise, vector_norm]
IMAGE_BLOCKS: list[Block] = [convolution, convolution, activation, activation, image_norm, pooling, elementwise]


def branches(r: Source, shape: Shape) -> nn.Module | None:
    """Join the input and two random functions of it."""
    simple = convolution if len(shape) == 3 else linear
    first, second = simple(r, shape), nn.Sequential(activation(r, shape))
    if first is None:
        return None
    shapes = output_shape(first, shape), output_shape(second, shape)
    if shapes[0] == shapes[1]:
        joins = [lambda x, f, g: f(x) - g(x.clone()), lambda x, f, g: f(x).add_(g(x.clone()))]
        joins += [lambda x, f, g: torch.maximum(f(x), g(x))] if r.others else []
        return Function(r.choice(joins), first, second)
    if shapes[0][1:] == shapes[1][1:]:
        return Function(lambda x, f, g: torch.cat([f(x), g(x.clone()), x], 1), first, second)
    return None


def random_graph(r: Source, shape: Shape) -> nn.Sequential:
    """Return a random classifier of inputs (B, *shape), in evaluation mode."""
    layers: list[nn.Module] = []
    classes, depth, now = r.choice([2, 3, 3, 5]), r.randint(2, 7), shape

    def append(block: Block) -> None:
        nonlocal now
        if (module := block(r, now)) is None:
            return
        after = output_shape(module, now)
        if (
            after
            and 0 < torch.Size(after).numel() <= 256
            and len(after) in {1, 3}
            and not (len(after) == 1 and after[0] < 2)
        ):
            layers.append(module)
            now = after

    for _ in range(depth):
        vector = len(now) == 1
        rare = (
            [branches, vector_rearrangement, to_image] if vector else [branches, image_rearrangement, transposed_convolution]
        )
        append(r.choice(rare if r.random() < 0.3 else VECTOR_BLOCKS if vector else IMAGE_BLOCKS))
    if len(now) == 3:
        append(to_vector)
    if r.random() < 0.5:
        append(activation)
    if len(now) == 3:
        layers.append(nn.Flatten())
        now = (torch.Size(now).numel(),)
    last = nn.Linear(now[0], classes)
    model = nn.Sequential(*layers, last).eval()
    with torch.no_grad():  # centred logits, so that each class is predicted somewhere
        logits = model(2 * torch.randn(64, *shape))
        last.weight /= logits.std().clamp(min=1e-3)
        last.bias -= model(2 * torch.randn(64, *shape)).mean(0)
    return model
