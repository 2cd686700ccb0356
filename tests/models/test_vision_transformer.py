"""The vision transformer: its function, its region counts and its measures."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import VisionTransformer

import regioncount as rc
from regioncount import data, models
from regioncount.regions.screening import folded
from regioncount.registry import measures

DIGITS = data.load("digits", train_size=120, test_size=100)


def small(**changes) -> nn.Module:
    options = {"patch_size": 4, "width": 16, "depth": 2, "heads": 4, "mlp_width": 24, **changes}
    return models.build("vision_transformer", 10, 1, image_size=8, **options)


VARIANTS = ["standard", "vit_cifar"]


@pytest.fixture(scope="module", params=VARIANTS)
def trained(request) -> nn.Module:
    """Return a transformer that fits the digits, so that margins are positive."""
    torch.manual_seed(0)
    model = small(variant=request.param)
    images, labels = DIGITS.normalize(DIGITS.train.images), DIGITS.train.labels
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
    with torch.no_grad():
        assert (model.eval()(images).argmax(dim=1) == labels).double().mean() > 0.99
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("channels", "size", "patch", "width", "depth", "mlp_width", "classes"),
    [(3, (32, 32), 4, 512, 6, 512, 10), (1, (8, 12), 2, 24, 3, 40, 7)],
)
def test_number_of_parameters_matches_the_paper(channels, size, patch, width, depth, mlp_width, classes, variant):
    with torch.device("meta"):
        options = {"patch_size": patch, "width": width, "depth": depth, "mlp_width": mlp_width, "variant": variant}
        model = models.build("vision_transformer", classes, channels, image_size=size, **options)
        assert model(torch.empty(2, channels, *size)).shape == (2, classes)
    tokens = size[0] * size[1] // patch**2 + 1
    attention = 4 * width * (width + 1)  # queries, keys, values and output
    perceptron = width * mlp_width + mlp_width + mlp_width * width + width
    embedding = (patch**2 * channels + 1) * width + (1 + tokens) * width
    expected = embedding + depth * (attention + perceptron + 4 * width) + 2 * width + (width + 1) * classes
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_same_function_as_torchvision():
    torch.manual_seed(0)
    options = {"patch_size": 4, "width": 24, "depth": 2, "heads": 3, "mlp_width": 40}
    model = models.build("vision_transformer", 7, 3, image_size=16, **options).double().eval()
    reference = VisionTransformer(16, 4, 2, 3, 24, 40, num_classes=7, norm_layer=nn.LayerNorm).double().eval()
    for parameter in model.parameters():  # position embeddings and biases that are not 0
        nn.init.normal_(parameter, std=0.5)
    ours, theirs = model.state_dict(), reference.state_dict()
    torchvision_names = {"class_token": "class_token", "positions": "encoder.pos_embedding"}
    layer_names = [name for name in ours if name.startswith("encoder.")]
    torchvision_names |= dict(zip(layer_names, [name for name in theirs if name.startswith("encoder.layers.")], strict=True))
    torchvision_names |= {"classifier.0.weight": "encoder.ln.weight", "classifier.0.bias": "encoder.ln.bias"}
    torchvision_names |= {"classifier.1.weight": "heads.head.weight", "classifier.1.bias": "heads.head.bias"}
    torchvision_names |= {"embedding.weight": "conv_proj.weight", "embedding.bias": "conv_proj.bias"}
    reference.load_state_dict({torchvision_names[name]: value for name, value in ours.items()})
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images), rtol=1e-9, atol=1e-9)


def plain_vit_cifar(image, weights, patch, depth, heads):
    """Compute the logits of one image (C, H, W) as in the authors' code, one token and one head at a time."""

    def linear(name, vector):
        return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]

    def normalize(name, vector):
        centered = vector - vector.mean()
        return weights[f"{name}.weight"] * centered / ((centered**2).mean() + 1e-5).sqrt() + weights[f"{name}.bias"]

    def gelu(vector):
        return vector * (1 + torch.erf(vector / math.sqrt(2))) / 2

    kernel, bias = weights["embedding.weight"], weights["embedding.bias"]
    tokens = [weights["class_token"].flatten()]
    for row in range(0, image.shape[1], patch):
        for column in range(0, image.shape[2], patch):
            part = image[:, row : row + patch, column : column + patch]
            tokens.append(torch.stack([(unit * part).sum() for unit in kernel]) + bias)
    tokens = [token + position for token, position in zip(tokens, weights["positions"][0], strict=True)]
    width = len(bias)
    for layer in (f"encoder.{number}" for number in range(depth)):
        projected = [
            linear(f"{layer}.attention.1.query_key_value", normalize(f"{layer}.attention.0", token)) for token in tokens
        ]
        queries, keys, values = ([token[first : first + width] for token in projected] for first in (0, width, 2 * width))
        for number, query in enumerate(queries):
            parts = []
            for head in range(heads):
                own = slice(head * width // heads, (head + 1) * width // heads)
                scores = [math.exp((query[own] @ key[own]).item() / math.sqrt(width)) for key in keys]
                parts.append(sum(score / sum(scores) * value[own] for score, value in zip(scores, values, strict=True)))
            tokens[number] = tokens[number] + linear(f"{layer}.attention.1.output", torch.cat(parts))
        for number, token in enumerate(tokens):
            hidden = gelu(linear(f"{layer}.perceptron.1", normalize(f"{layer}.perceptron.0", token)))
            tokens[number] = token + gelu(linear(f"{layer}.perceptron.4", hidden))
    return linear("classifier.1", normalize("classifier.0", tokens[0]))


def test_the_variant_of_the_paper_is_the_function_of_the_authors():
    torch.manual_seed(0)
    options = {"patch_size": 2, "width": 12, "depth": 2, "heads": 3, "mlp_width": 10}
    model = models.build("vision_transformer", 5, 3, image_size=(4, 6), variant="vit_cifar", **options).double()
    standard = models.build("vision_transformer", 5, 3, image_size=(4, 6), dropout=0.0, **options).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    standard.load_state_dict(
        dict(zip(standard.state_dict(), model.state_dict().values(), strict=True))
    )  # their encoders begin with and without dropout
    images = torch.randn(3, 3, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([plain_vit_cifar(image, model.state_dict(), 2, 2, 3) for image in images])
        torch.testing.assert_close(model.eval()(images), expected, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(standard.eval()(images), expected, rtol=0.1)


@pytest.mark.parametrize(("variant", "class_token", "positions"), [("standard", 0.0, 0.02), ("vit_cifar", 1.0, 1.0)])
def test_initial_embeddings_and_layers(variant, class_token, positions):
    """Other layers have the bounds of torch's linear layers, 1 / sqrt(inputs), in both variants and in the authors' code."""
    torch.manual_seed(0)
    options = {"patch_size": 2, "width": 384, "depth": 1, "heads": 4, "mlp_width": 100}
    model = models.build("vision_transformer", 10, 3, image_size=8, variant=variant, **options)
    assert model.class_token.std().item() == pytest.approx(class_token, rel=0.15)
    assert model.positions.std().item() == pytest.approx(positions, rel=0.05)
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    assert len(layers) == 6
    for layer in layers:
        bound = layer.weight[0].numel() ** -0.5
        for weight in (layer.weight, layer.bias):
            assert 0.8 * bound < weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("variant", VARIANTS)
def test_dropout_is_placed_as_in_the_paper(variant):
    """After every linear layer except the projection to queries, keys and values; if standard, also after the embedding."""
    model = small(dropout=0.3, variant=variant)
    number = 3 * 2 + (variant == "standard")
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.3] * number
    torch.manual_seed(0)
    images = torch.randn(4, 1, 8, 8)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_step_of_training_reaches_every_parameter(variant):
    torch.manual_seed(0)
    model = small(variant=variant)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cross_entropy(model(torch.randn(4, 1, 8, 8)), torch.tensor([3, 7, 1, 0])).backward()
    optimizer.step()
    assert [name for name, value in model.state_dict().items() if torch.equal(value, before[name])] == []


def test_folding_batch_normalization_does_not_change_it(trained):
    inputs = DIGITS.normalize(DIGITS.test.images)
    with torch.no_grad():
        assert torch.equal(folded(trained)(inputs), trained(inputs))


@pytest.mark.parametrize("dimension", [1, 2])
def test_auto_counts_the_same_regions_as_grid(trained, dimension):
    generator = torch.Generator().manual_seed(1)
    vertices = rc.sample_simplices(DIGITS.normalize(DIGITS.train.images), dimension, 30, generator)
    auto, grid = (rc.count_regions(trained, vertices, method=method) for method in ("auto", "grid"))
    assert auto.method == "adaptive"
    assert list(auto.counts) == list(grid.counts)


def test_measures_are_finite_or_undefined_with_a_reason(trained):
    torch.manual_seed(1)
    variant = VARIANTS[sum(isinstance(module, nn.GELU) for module in trained.modules()) // 4]
    values = rc.measure(trained, DIGITS, initial=small(variant=variant))
    reasons = {name: value for name, value in values.items() if isinstance(value, str)}
    undefined = {name.removesuffix("_error"): reason for name, reason in reasons.items()}
    assert "has no rectifier" in undefined.pop("activation_changes")
    assert "history of training is not known" in undefined.pop("epochs_to_fit")
    # Norms of layers: the class token, the positions, layer norm and attention have weights outside of the layers.
    assert all("is not the weight or bias of a convolution or a linear layer" in reason for reason in undefined.values())
    words = ("frobenius", "spectral", "operator", "path_norm")
    assert {*undefined} == {name for name in values if any(word in name for word in words) and not name.endswith("_error")}
    assert all(math.isfinite(values[name]) for name in measures.names() if name in values and f"{name}_error" not in values)
    assert {"hessian_eigenvalue", "fisher_rao_norm", "pacbayes_origin", "jacobian_norm"} <= {*values}
