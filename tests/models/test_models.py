from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import configuration
from torch import nn
from torch.nn import functional

from regioncount import models, registry
from regioncount.data import Dataset, Split
from regioncount.errors import InputError
from regioncount.models import kinds, networks
from regioncount.models.dla import Tree
from regioncount.models.efficientnet import DropConnect
from regioncount.models.layers import scaled
from regioncount.models.mobilenet import InvertedResidual
from regioncount.models.senet import PreActivationBlock
from regioncount.models.shufflenet import shuffle

# The number of parameters, and of million multiply-adds in convolutions and linear layers, for 10 classes and 3 x 32 x 32.
PAPER_NETWORKS = {
    "resnet18": (11_173_962, 555.4),
    "resnet34": (21_282_122, 1159.4),
    "vgg19": (20_040_522, 398.1),
    "mobilenet": (3_217_226, 46.4),
    "senet18": (11_260_354, 555.5),
    "shufflenetv2": (1_263_854, 45.0),
    "efficientnet_b0": (3_599_686, 30.3),
    "regnetx_200mf": (2_321_946, 223.3),
    "simple_dla": (15_142_970, 913.5),
    "mobilenetv2": (2_296_922, 91.2),
}
# The number of parameters for 1,000 classes. Those of torchvision's networks are in its documentation. Those of the CIFAR
# networks follow from the table above: the stem changes none, and the last layer has 513 x 990 more.
IMAGENET_NETWORKS = {
    "imagenet_resnet18": 11_173_962 + 513 * 990,
    "imagenet_resnet34": 21_282_122 + 513 * 990,
    "senet18": 11_260_354 + 513 * 990,
    "simple_dla": 15_142_970 + 513 * 990,
    "imagenet_vgg19": 143_667_240,
    "imagenet_mobilenet": 3_504_872,
    "imagenet_shufflenetv2": 2_278_604,
    "imagenet_efficientnet_b0": 5_288_548,
    "imagenet_regnetx_400mf": 5_495_976,
}
CONVOLUTIONAL = (*PAPER_NETWORKS, "small_cnn")
CONFIGS = Path(__file__).parents[2] / "configs" / "model"


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_adds(network, input_shape):
    """Count one multiply-add for each weight of each output value, without biases."""
    total = 0

    def add(module, inputs, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    network(torch.empty(1, *input_shape, device="meta"))
    return total


def as_if_trained(network):
    """Return the network in evaluation mode, with normalization statistics for which activations have both signs."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 32, 32))
    return network.eval()


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_sizes_match_the_published_networks(name):
    with torch.device("meta"):
        network = models.build(name)
    parameters, million_multiply_adds = PAPER_NETWORKS[name]
    assert count_parameters(network) == parameters
    assert round(count_multiply_adds(network.eval(), (3, 32, 32)) / 1e6, 1) == million_multiply_adds


@pytest.mark.parametrize("name", IMAGENET_NETWORKS)
def test_imagenet_networks_have_the_published_sizes_and_1000_classes(name):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    # The constructors of torchvision's RegNets read values of tensors.
    with torch.device("cpu" if "regnet" in name else "meta"):
        network = models.build(**config, num_classes=1000, image_size=224)
    assert count_parameters(network) == IMAGENET_NETWORKS[name]
    with torch.device("meta"):
        assert network.to("meta")(torch.empty(2, 3, 224, 224)).shape == (2, 1000)


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_the_imagenet_stem_has_stride_2_and_max_pooling_and_leaves_the_rest_unchanged(name):
    torch.manual_seed(0)
    cifar = as_if_trained(models.build(name, width=8)).double()
    imagenet = models.build(name, width=8, stem="imagenet").double().eval()
    names = zip(imagenet.state_dict(), cifar.state_dict().values(), strict=True)
    imagenet.load_state_dict(dict(names))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        stem, *rest = cifar
        pooled = functional.max_pool2d(stem(images)[:, :, ::2, ::2], 3, stride=2, padding=1)
        assert pooled.shape == (2, 8, 16, 16)
        torch.testing.assert_close(imagenet(images), nn.Sequential(*rest)(pooled), rtol=1e-9, atol=1e-9)


def test_the_name_in_tables_includes_a_stem_that_is_not_the_default():
    def name(**options):
        return kinds.title(configuration(model={"name": "resnet18", "width": 64, **options}).model)

    assert name() == name(stem="cifar") == "resnet18"
    assert name(stem="imagenet") == "resnet18 imagenet"


def test_torchvision_networks_whose_constructors_read_values_are_accepted():
    split = Split(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    dataset = Dataset("images", split, split, ("a", "b"), (0.5,) * 3, (0.25,) * 3)
    assert networks.check({"name": "torchvision", "architecture": "regnet_x_400mf"}, dataset, None) > 10**6


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_one_step_of_training_gives_finite_gradients(name):
    torch.manual_seed(0)
    network = models.build(name)
    functional.cross_entropy(network(torch.randn(2, 3, 32, 32)), torch.tensor([3, 7])).backward()
    without_gradient = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    # The expansion in the first block of pytorch-cifar's EfficientNet is not used.
    unused = ["1.expand.0.weight", "1.expand.1.weight", "1.expand.1.bias"] if name == "efficientnet_b0" else []
    assert without_gradient == unused
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_other_classes_channels_and_image_sizes(name):
    network = models.build(name, 7, 1, width=8).eval()
    with torch.inference_mode():
        for height, width in [(64, 64), (32, 48)]:
            assert network(torch.randn(2, 1, height, width)).shape == (2, 7)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_evaluation_is_deterministic_and_independent_of_the_batch(name):
    torch.manual_seed(0)
    network = as_if_trained(models.build(name, width=8)).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        together = network(images)
        assert torch.equal(network(images), together)
        alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("width", [1, 13])
def test_width_is_that_of_the_first_convolution(name, width):
    with torch.device("meta"):
        network = models.build(name, width=width).eval()
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        assert first.out_channels == width
        assert network(torch.empty(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_all_channels_grow_with_width(name):
    default = models.default_options(name)["width"]
    with torch.device("meta"):
        one, two = models.build(name), models.build(name, width=2 * default)
    for layer, doubled in zip(one.modules(), two.modules(), strict=True):
        if isinstance(layer, nn.BatchNorm2d):
            assert doubled.num_features == 2 * layer.num_features


@given(st.integers(1, 2000), st.integers(1, 300), st.integers(1, 300), st.integers(1, 16))
def test_scaled(channels, width, default_width, divisor):
    result = scaled(channels, width, default_width, divisor)
    exact = channels * width / default_width
    assert result >= divisor
    assert result % divisor == 0
    assert result == divisor or abs(result - exact) <= divisor / 2 + 1e-9
    assert scaled(channels * divisor, width, width, divisor) == channels * divisor


def resnet_reference():
    reference = torchvision.models.resnet18(num_classes=10)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    return reference


def vgg_reference():
    # Without the classifier of 120 million parameters, which is replaced.
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["E"], batch_norm=True)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(512, 10))


def shufflenet_reference():
    reference = torchvision.models.shufflenet_v2_x1_0(num_classes=10)
    reference.maxpool = nn.Identity()
    reference.conv1[0].stride = (1, 1)
    return reference


def efficientnet_reference():
    reference = torchvision.models.efficientnet_b0(num_classes=10)
    reference.features[-1], reference.classifier[-1] = nn.Identity(), nn.Linear(320, 10)
    reference.features[0][0].stride = (1, 1)
    return reference


def regnet_reference():
    blocks = torchvision.models.regnet.BlockParams(
        depths=[1, 1, 4, 7],
        widths=[24, 56, 152, 368],
        group_widths=[8] * 4,
        bottleneck_multipliers=[1.0] * 4,
        strides=[1, 1, 2, 2],
    )
    reference = torchvision.models.regnet.RegNet(blocks, num_classes=10, stem_width=64)
    reference.stem[0].stride = (1, 1)
    return reference


REFERENCES = {
    "resnet18": resnet_reference,
    "vgg19": vgg_reference,
    "shufflenetv2": shufflenet_reference,
    "efficientnet_b0": efficientnet_reference,
    "regnetx_200mf": regnet_reference,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_same_function_as_torchvision_with_a_cifar_stem(name):
    torch.manual_seed(0)
    network, reference = as_if_trained(models.build(name)), REFERENCES[name]()
    # Both list their weights in the same order. torchvision has no unused expansion in the first block of EfficientNet.
    unused = "1.expand." if name == "efficientnet_b0" else None
    ours = {key: value for key, value in network.state_dict().items() if not (unused and key.startswith(unused))}
    theirs = reference.state_dict().values()
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs]
    reference.load_state_dict(dict(zip(reference.state_dict(), ours.values(), strict=True)))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        expected = reference.double().eval()(images)
        torch.testing.assert_close(network.double()(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("out_channels", "stride"), [(32, 1), (32, 2), (48, 1)])
def test_pre_activation_block_by_its_formula(out_channels, stride):
    torch.manual_seed(0)
    block = PreActivationBlock(32, out_channels, stride).eval()
    first, norm, _, second, gate = block.residual
    x = torch.randn(2, 32, 8, 8)
    activated = block.activate[0](x).clamp(min=0)
    residual = functional.conv2d(activated, first.weight, stride=stride, padding=1)
    residual = functional.conv2d(norm(residual).clamp(min=0), second.weight, padding=1)
    _, squeeze, _, excite, _ = gate.gate
    assert squeeze.out_channels == out_channels // 16
    means = residual.mean(dim=(2, 3))
    hidden = (means @ squeeze.weight[:, :, 0, 0].T + squeeze.bias).clamp(min=0)
    gates = 1 / (1 + torch.exp(-(hidden @ excite.weight[:, :, 0, 0].T + excite.bias)))
    same_shape = (out_channels, stride) == (32, 1)
    shortcut = x if same_shape else functional.conv2d(activated, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(x), residual * gates[:, :, None, None] + shortcut)


@pytest.mark.parametrize(("out_channels", "stride", "shortcut"), [(8, 1, True), (8, 2, False), (12, 1, True)])
def test_inverted_residual_of_mobilenetv2(out_channels, stride, shortcut):
    block = InvertedResidual(8, out_channels, 6, stride).eval()
    x = torch.randn(2, 8, 8, 8)
    nn.init.zeros_(block.residual[-1][-1].weight)  # leaves the shortcut, with no activation after it
    size = 8 // stride
    expected = block.shortcut(x) if shortcut else torch.zeros(2, out_channels, size, size)
    torch.testing.assert_close(block(x), expected)
    if out_channels == 8 and shortcut:
        torch.testing.assert_close(block(x), x)


def test_tree_of_two_levels_by_its_formula():
    torch.manual_seed(0)
    tree = Tree(4, 8, levels=2, stride=2).eval()
    x = torch.randn(2, 4, 8, 8)
    first = tree.left.left(x)
    left = tree.left.root(torch.cat([first, tree.left.right(first)], 1))
    second = tree.right.left(left)
    right = tree.right.root(torch.cat([second, tree.right.right(second)], 1))
    convolution, norm, _ = tree.root
    expected = norm(convolution(torch.cat([left, right], 1))).clamp(min=0)
    torch.testing.assert_close(tree(x), expected)
    assert expected.shape == (2, 8, 4, 4)


def test_shuffle_interleaves_the_halves():
    x = torch.arange(2 * 6 * 4.0).reshape(2, 6, 2, 2)
    assert torch.equal(shuffle(x), x[:, [0, 3, 1, 4, 2, 5]])


def test_drop_connect():
    torch.manual_seed(0)
    layer = DropConnect(0.2)
    x = torch.ones(20_000, 2, 1, 1)
    dropped = layer(x)[:, :, 0, 0]
    assert torch.equal(dropped[:, 0], dropped[:, 1])  # whole items
    torch.testing.assert_close(dropped[dropped > 0], torch.tensor(1.25).expand(int((dropped > 0).sum())))
    assert abs(dropped.mean() - 1) < 5 * 1.25 * (0.2 * 0.8 / 20_000) ** 0.5
    assert torch.equal(layer.eval()(x), x)


def test_drop_connect_and_dropout_of_efficientnet():
    with torch.device("meta"):
        network = models.build("efficientnet_b0")
    blocks = list(network)[1:-4]
    rates = {index: block.drop_connect.rate for index, block in enumerate(blocks) if block.drop_connect is not None}
    assert rates == pytest.approx({index: 0.2 * index / 16 for index in (2, 4, 6, 7, 9, 10, 12, 13, 14)})
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.2]


def test_small_cnn_on_digits():
    torch.manual_seed(0)
    network = models.build("small_cnn", 10, 1, image_size=8)
    images = torch.randn(16, 1, 8, 8)
    labels = torch.arange(16) % 10
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    assert (network(images).argmax(1) == labels).all()


@pytest.mark.parametrize("depth", [1, 3])
def test_mlp_by_its_formula(depth):
    network = models.build("mlp", 5, 2, image_size=(4, 6), width=7, depth=depth)
    images = torch.randn(3, 2, 4, 6)
    weights = list(network.parameters())
    assert len(weights) == 2 * (depth + 1)
    hidden = images.reshape(3, 48)
    for layer in range(depth):
        hidden = (hidden @ weights[2 * layer].T + weights[2 * layer + 1]).clamp(min=0)
        assert hidden.shape == (3, 7)
    torch.testing.assert_close(network(images), hidden @ weights[-2].T + weights[-1])


def test_weights_depend_on_the_seed_alone():
    def state(seed):
        torch.manual_seed(seed)
        return torch.cat([value.flatten() for value in models.build("resnet18", width=4).state_dict().values()])

    assert torch.equal(state(1), state(1))
    assert not torch.equal(state(1), state(2))


def test_torchvision_models_are_unchanged():
    torch.manual_seed(0)
    network = models.build("torchvision", 7, architecture="squeezenet1_1").eval()
    torch.manual_seed(0)
    reference = torchvision.models.squeezenet1_1(num_classes=7).eval()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(network(images), reference(images))


@pytest.mark.parametrize(
    ("architecture", "image_size"),
    [("vit_b_16", 32), ("maxvit_t", 224), ("googlenet", 64), ("inception_v3", 96), ("mobilenet_v3_small", (32, 48))],
)
def test_torchvision_models_return_one_tensor_in_training(architecture, image_size):
    with torch.device("meta"):
        network = models.build("torchvision", 7, image_size=image_size, architecture=architecture)
        height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
        assert network.train()(torch.empty(2, 3, height, width)).shape == (2, 7)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("resnet81",), {}, r"model=resnet81: no such choice; .*resnet18.*mlp.*torchvision.*did you mean resnet18"),
        ((["resnet18"],), {}, "no such choice"),
        (("resnet18",), {"depth": 2}, r"model\.depth: resnet18 has no such option; its options are width"),
        (("mlp",), {"hidden": 2}, "its options are width, depth"),
        (("resnet18",), {"width": 0}, r"model\.width=0: must be at least 1"),
        (("resnet18",), {"stem": "large"}, r"model\.stem=large: no such choice; choose one of cifar, imagenet"),
        (("vgg19",), {"stem": "imagenet"}, r"model\.stem: vgg19 has no such option"),
        (("resnet18",), {"width": 16.0}, r"model\.width=.*: give a whole number"),
        (("resnet18",), {"width": True}, r"model\.width=.*: give a whole number"),
        (("resnet18",), {"width": None}, r"model\.width=.*: give a whole number"),
        (("mlp",), {"depth": -1}, r"model\.depth=-1: must be at least 1"),
        (("mlp", 0), {}, "num_classes=0: give a whole number from 1"),
        (("mlp", 10, 0), {}, "in_channels=0: give a whole number from 1"),
        (("mlp",), {"image_size": 0}, "image_size=0: give a whole number from 1"),
        (("resnet18",), {"image_size": (3, 32, 32)}, r"image_size=.*: give one whole number or \(height, width\)"),
        (("mlp",), {"image_size": None}, r"image_size=.*: give one whole number or \(height, width\)"),
        (("vision_transformer",), {"patch_size": 5}, "patch_size=5 does not divide images of 32 x 32"),
        (("vision_transformer",), {"image_size": (32, 30)}, "patch_size=4 does not divide images of 32 x 30"),
        (("vision_transformer",), {"heads": 7}, "heads=7 does not divide width=512"),
        (("vision_transformer",), {"dropout": 1.0}, r"model\.dropout=1.0: must be below 1"),
        (("vision_transformer",), {"dropout": "much"}, r"model\.dropout=much: give a number"),
        (("torchvision", 10, 1), {}, "3 channels, not 1"),
        (("torchvision",), {"architecture": 18}, r"model\.architecture=18: give a name"),
        (("torchvision",), {"architecture": "ResNet-18"}, "no architecture 'ResNet-18'; close names: .*resnet18"),
        (("torchvision",), {"architecture": "????"}, "list_models"),
        (("torchvision",), {"architecture": "fasterrcnn_resnet50_fpn"}, "not a classifier"),
        (("torchvision",), {"architecture": "fcn_resnet50"}, "not a classifier"),
        (("torchvision",), {"architecture": "r3d_18"}, "not a classifier"),
        (("torchvision",), {"architecture": "vit_b_16", "image_size": 30}, "cannot take images of 30 x 30"),
        (("torchvision",), {"architecture": "vit_b_16", "image_size": (32, 48)}, "square images"),
        (("torchvision",), {"architecture": "maxvit_t", "image_size": 32}, "cannot take images of 32 x 32"),
    ],
)
def test_invalid_arguments_raise_a_one_line_error(arguments, options, message):
    with pytest.raises(InputError, match=message) as caught:
        models.build(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_numpy_integers_are_accepted():
    assert count_parameters(models.build("mlp", width=np.int64(8))) == count_parameters(models.build("mlp", width=8))


def test_configs_match_the_registry():
    configs = {path.stem: yaml.safe_load(path.read_text()) for path in CONFIGS.glob("*.yaml")}
    assert configs.pop("custom") == {"_target_": "???"}
    named = {name for name in configs if not name.startswith("imagenet_")}  # the paper's networks for ImageNet
    assert named == set(registry.models.names())
    for name in set(registry.models.names()) - set(models.names()):
        assert configs.pop(name) == {"name": name, **models.default_options(name)}
    imagenet = {name for name in configs if name.startswith("imagenet_")}
    assert imagenet == set(IMAGENET_NETWORKS) - {"senet18", "simple_dla"}
    for name in imagenet:
        configs.pop(name)
    assert configs.pop("huggingface") == {"name": "huggingface", "path": None, "pretrained": True}  # the path is required
    assert configs.pop("timm") == {"name": "timm", **models.default_options("timm")}  # an optional package builds it
    for name, config in configs.items():
        assert config == {"name": name, **models.default_options(name)}
        with torch.device("meta"):
            models.build(**config)
