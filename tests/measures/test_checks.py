"""Measures of another function than the model's are undefined, and bad models and data are refused before any measure."""

import copy
import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset
from torchvision.ops import FrozenBatchNorm2d

import regioncount as rc
from regioncount.measures.layer_norms import spectral_norms
from regioncount.measures.measured_model import from_tensors
from regioncount.measures.pairs import as_pair

IMAGES = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 3
DATA = (IMAGES, LABELS)
NORMS = ["parameter_norm", "log_product_frobenius", "log_product_spectral", "log_product_operator", "log_path_norm"]


def trained_statistics(model):
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    return model.eval()


class Shared(nn.Module):
    """A convolution that is used twice, with batch normalization after its first use."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.head = nn.Linear(144, 3)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(self.conv(x)))
        return self.head(F.relu(self.conv(x)).flatten(1))


class BatchNormAct(nn.BatchNorm2d):
    """Normalization and activation in one module, as in timm."""

    def forward(self, x):
        return F.relu(super().forward(x))


def convolutional(norm, groups=1):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 6, 3, groups=groups), norm, nn.ReLU(), nn.Flatten(), nn.Linear(216, 3))


@pytest.mark.parametrize("model", [Shared(), convolutional(BatchNormAct(6))], ids=["shared", "with activation"])
def test_a_fold_that_changes_the_function_is_undefined(model):
    values = rc.measure(trained_statistics(model), DATA, [*NORMS, "accuracy", "parameter_count"], test=DATA)
    for name in NORMS:
        assert math.isnan(values[name])
        assert "folded" in values[f"{name}_error"]
    assert values["train_accuracy"] >= 0
    assert values["parameter_count"] > 0


def test_parametrized_weights_have_the_norms_of_the_weights_that_are_used():
    plain = trained_statistics(convolutional(nn.BatchNorm2d(6)))
    wrapped = trained_statistics(convolutional(nn.BatchNorm2d(6)))
    parametrizations.weight_norm(wrapped[0])
    parametrizations.weight_norm(wrapped[4])
    expected, values = (rc.measure(model, (IMAGES, LABELS), NORMS) for model in (plain, wrapped))
    assert values == pytest.approx(expected, rel=1e-5)


def test_norms_are_defined_only_if_every_parameter_is_in_a_layer():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    model = nn.Sequential(nn.Unflatten(1, (4, 16)), layer, nn.Flatten(), nn.Linear(64, 3)).eval()
    values = rc.measure(model, (torch.randn(40, 64), LABELS), NORMS)
    assert math.isfinite(values["parameter_norm"])
    for name in NORMS[1:]:
        assert "is not the weight or bias of a convolution or a linear layer" in values[f"{name}_error"]


ALL_WEIGHTS = [
    *NORMS,
    "frobenius_distance",
    "sharpness",
    "adaptive_average_sharpness",
    "hessian_eigenvalue",
    "pacbayes_flatness",
]


def frozen(module):
    """Batch normalization as torchvision's frozen one, with the same function in evaluation mode."""
    norm = FrozenBatchNorm2d(module.num_features, module.eps)
    norm.load_state_dict(module.state_dict(), strict=False)
    return norm


def test_frozen_batch_normalization_has_the_values_of_batch_normalization():
    model, initial = trained_statistics(convolutional(nn.BatchNorm2d(6))), convolutional(nn.BatchNorm2d(6))
    twin, initial_twin = copy.deepcopy(model), copy.deepcopy(initial)
    twin[1], initial_twin[1] = frozen(model[1]), frozen(initial[1])
    names = ALL_WEIGHTS[:-1]  # no noise lowers the accuracy on these data
    expected = rc.measure(model, DATA, names, initial=initial)
    values = rc.measure(twin, DATA, names, initial=initial_twin)
    assert all(math.isfinite(expected[name]) for name in names)
    assert values == pytest.approx(expected, rel=1e-5)
    assert isinstance(twin[1], FrozenBatchNorm2d)  # the model is not changed


class FunctionalBatchNorm(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        norm = self.norm
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def test_batch_normalization_that_is_a_function_is_not_measured_unfolded():
    model = trained_statistics(convolutional(FunctionalBatchNorm(nn.BatchNorm2d(6))))
    exported = torch.export.export(model, (IMAGES[:4],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for one in (model, exported):
        values = rc.measure(one, DATA, [*ALL_WEIGHTS, "accuracy"], initial=model)
        assert all("batch normalization as a function" in values[f"{name}_error"] for name in ALL_WEIGHTS)
        assert values["train_accuracy"] >= 0


class Standardized(nn.Conv2d):
    """A convolution that standardizes its weight in its forward pass."""

    def forward(self, x):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class Doubled(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, 2 * weight, bias)


def with_own_forward():
    layer = nn.Conv2d(3, 6, 3)
    layer.forward = lambda x: F.conv2d(x, 2 * layer.weight, layer.bias)
    return layer


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(3.0))

    def forward(self, x):
        return x * self.scale


class Cosine(nn.Linear):
    def forward(self, x):
        return 16 * F.linear(F.normalize(x), F.normalize(self.weight), self.bias)


OWN_ARITHMETIC = {
    "a subclass": (lambda: [Standardized(3, 6, 3), nn.Flatten(), nn.Linear(216, 3)], r"layer 0 \(Standardized\)"),
    "a subclass's convolution": (lambda: [Doubled(3, 6, 3), nn.Flatten(), nn.Linear(216, 3)], r"layer 0 \(Doubled\)"),
    "an object's forward": (lambda: [with_own_forward(), nn.Flatten(), nn.Linear(216, 3)], r"layer 0 \(Conv2d\)"),
    "a cosine head": (lambda: [nn.Flatten(), nn.Linear(192, 6), Cosine(6, 3)], r"layer 2 \(Cosine\)"),
    "a buffer": (lambda: [nn.Conv2d(3, 6, 3), Scale(), nn.Flatten(), nn.Linear(216, 3)], "its buffer 1.scale"),
}


@pytest.mark.parametrize("name", OWN_ARITHMETIC)
def test_norms_of_weights_that_are_not_those_of_the_function_are_undefined(name):
    layers, message = OWN_ARITHMETIC[name]
    values = rc.measure(nn.Sequential(*layers()).eval(), DATA, NORMS)
    for norm in NORMS[1:]:
        assert re.search(message, values[f"{norm}_error"])


def test_a_strided_convolution_of_pixels_has_norms():
    model = nn.Sequential(nn.Conv2d(3, 6, 1, stride=2), nn.Flatten(), nn.Linear(96, 3)).eval()
    assert all(math.isfinite(value) for value in rc.measure(model, DATA, NORMS).values())


@pytest.mark.parametrize("output", [lambda y: {"logits": y}, lambda y: (y, None)], ids=["dict", "tuple"])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.Identity])
def test_the_form_of_the_output_does_not_change_a_norm(output, norm):
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return output(self.inner(x))

    model = trained_statistics(convolutional(norm(6)))
    assert rc.measure(Wrapped(model).eval(), DATA, NORMS) == pytest.approx(rc.measure(model, DATA, NORMS), rel=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda layer: parametrizations.weight_norm(layer),
        lambda layer: prune.identity(layer, "weight"),
        lambda layer: prune.identity(layer, "bias"),
        lambda layer: parametrizations.weight_norm(prune.identity(layer, "bias")),
    ],
    ids=["weight norm", "pruned weight", "pruned bias", "both"],
)
def test_noise_on_the_weights_does_not_depend_on_how_they_are_computed(wrap):
    names = ["adaptive_average_sharpness", "average_sharpness"]
    plain, wrapped = linear(), linear()
    wrap(wrapped[0])
    expected, values = (rc.measure(model, (VECTORS, LABELS), names) for model in (plain, wrapped))
    assert values == pytest.approx(expected, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_spectral_norm_of_a_grouped_convolution_is_that_of_its_block_diagonal_matrix(groups):
    model = convolutional(nn.Identity(), groups).eval()
    weight = model[0].weight.detach().double()
    blocks = [block.flatten(1) for block in weight.split(len(weight) // groups)]
    expected = torch.linalg.matrix_norm(torch.block_diag(*blocks), 2)
    assert spectral_norms(from_tensors(model, (IMAGES, LABELS)))[0] == pytest.approx(expected.item())


@pytest.mark.parametrize("where", ["the model", "the call", "both"])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda channels: nn.Identity()])
def test_inference_mode_does_not_change_a_measure(where, norm):
    names = [
        *NORMS,
        "frobenius_distance",
        "sharpness",
        "hessian_eigenvalue",
        "gradient_norm",
        "jacobian_norm",
        "input_margin",
    ]
    model, initial = trained_statistics(convolutional(norm(6))), convolutional(norm(6))
    expected = rc.measure(model, DATA, names, initial=initial)
    assert not any(name.endswith("_error") for name in expected)
    with torch.inference_mode(where != "the call"):
        copied, copied_initial, data = copy.deepcopy(model), copy.deepcopy(initial), (IMAGES * 1, LABELS * 1)
    with torch.inference_mode(where != "the model"):
        assert rc.measure(copied, data, names, initial=copied_initial) == pytest.approx(expected, rel=1e-5)
        assert torch.is_inference_mode_enabled() == (where != "the model")


def test_a_model_that_writes_to_its_input_leaves_the_data_unchanged():
    torch.manual_seed(0)
    inputs = torch.randn(40, 8)
    layers = [nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)]
    in_place, plain = nn.Sequential(nn.ReLU(inplace=True), *layers), nn.Sequential(nn.ReLU(), *layers)
    data = inputs.clone(), LABELS
    values = [rc.measure(model, data) for model in (in_place, in_place, plain)]
    assert torch.equal(data[0], inputs)
    assert repr(values[0]) == repr(values[1])
    for name, number in values[2].items():
        if isinstance(number, float):
            assert values[0][name] == pytest.approx(number, rel=1e-4, nan_ok=True), name


def linear(classes=3, inputs=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 6), nn.ReLU(), nn.Linear(6, classes))


VECTORS = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
DATA_OF_VECTORS = (VECTORS, LABELS)
NAMES = np.array(["cat", "dog", "elk"])[np.arange(40) % 3]
REFUSED = {
    "a label out of range": (lambda: rc.measure(linear(), (VECTORS, LABELS + 1)), "training label 3 is not a class"),
    "a negative label": (lambda: rc.measure(linear(), (VECTORS, LABELS - 1)), "training label -1"),
    "a test label": (lambda: rc.measure(linear(), (VECTORS, LABELS), test=(VECTORS, LABELS + 1)), "test label 3"),
    "another initial model": (lambda: rc.measure(linear(), (VECTORS, LABELS), initial=linear(4)), "another architecture"),
    "no examples": (lambda: rc.measure(linear(), (VECTORS[:0], LABELS[:0])), "no examples"),
    "a probability": (lambda: rc.measure(nn.Sequential(linear(1), nn.Sigmoid()), (VECTORS, LABELS * 0)), "as a probability"),
    "probabilities": (
        lambda: rc.measure(nn.Sequential(linear(), nn.Softmax(1)), (VECTORS, LABELS)),
        "as probabilities: return logits",
    ),
    "sigmoids": (lambda: rc.measure(lambda x: linear()(x).sigmoid(), (VECTORS, LABELS)), "as probabilities: return logits"),
    "halves of sigmoids": (
        lambda: rc.measure(lambda x: (linear()(x).sigmoid() / 2).half(), DATA_OF_VECTORS),
        "probabilities",
    ),
    "integer logits": (lambda: rc.measure(lambda x: (9 * linear()(x)).long(), DATA_OF_VECTORS), "return logits.float"),
    "a tuple": (lambda: rc.measure(lambda x: (x[0], x), (VECTORS, LABELS)), "returned a tuple"),
    "names of labels": (lambda: rc.measure(linear(), (VECTORS, NAMES)), "labels are names.* returns logits"),
    "names and numbers": (lambda: rc.measure(lambda x: x[:, 0] > 0, (VECTORS, NAMES)), "labels are names.* numbers"),
    "numbers and names": (lambda: rc.measure(lambda x: ["a"] * len(x), (VECTORS, LABELS)), "numbers, but the model returns"),
    "noise": (lambda: rc.measure(nn.Sequential(linear(), Noise()), (VECTORS, LABELS)), "different logits"),
}


def test_logits_that_happen_to_be_between_0_and_1_are_measured():
    torch.manual_seed(0)
    small = nn.Sequential(nn.Linear(8, 3), nn.ReLU())
    small[0].weight.data *= 0.01
    small[0].bias.data.fill_(0.5)
    assert ((small(VECTORS) >= 0) & (small(VECTORS) <= 1)).all()
    assert rc.measure(small.eval(), DATA_OF_VECTORS, "accuracy")["train_loss"] > 0
    zero = linear().eval()
    nn.init.zeros_(zero[2].weight)
    nn.init.zeros_(zero[2].bias)
    assert rc.measure(zero, DATA_OF_VECTORS, "accuracy")["train_loss"] == pytest.approx(math.log(3))


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


@pytest.mark.parametrize("name", REFUSED)
def test_bad_models_and_labels_are_refused_in_one_line(name):
    call, message = REFUSED[name]
    with pytest.raises(rc.InputError, match=message) as refused:
        call()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named_as_the_reason(value):
    model = linear()
    model[0].weight.data[0, 0] = value
    values = rc.measure(model, (VECTORS, LABELS), NORMS)
    assert all("not a finite number" in values[f"{name}_error"] for name in NORMS)


class Calls(nn.Module):
    """A network that calls a layer several times, not at all, or uses its weight in a function."""

    def __init__(self, times, by_function=False):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.layer, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.times, self.by_function = times, by_function

    def forward(self, values):
        values = self.first(values)
        for _ in range(self.times):
            values = self.layer(values).relu()
        return self.last(F.linear(values, self.layer.weight) if self.by_function else values)


@pytest.mark.parametrize(("times", "by_function"), [(0, False), (2, False), (0, True)])
def test_norms_of_layers_are_defined_only_if_each_is_called_once(times, by_function):
    data = torch.randn(20, 6), torch.arange(20) % 3
    names = ["log_product_frobenius", "sum_spectral", "log_product_operator", "frobenius_over_spectral"]
    values = rc.measure(Calls(times, by_function), data, names)
    for name in names:
        assert math.isnan(values[name])
        assert f"its layer layer {times} times" in values[f"{name}_error"]
    assert all(math.isfinite(rc.measure(Calls(1), data, names)[name]) for name in names)


class Shares(nn.Module):
    """A network whose first parameter is used a second time, by a function, or whose layer is called by keyword."""

    def __init__(self, shared):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last, self.shared = nn.Linear(6, 6), nn.Linear(6, 3), shared

    def forward(self, values):
        values = self.first(input=values).relu()
        if self.shared == "weight":
            values = F.linear(values, self.first.weight)
        elif self.shared == "bias":
            values = values + self.first.bias
        return self.last(values)


@pytest.mark.parametrize("shared", ["weight", "bias"])
def test_norms_of_layers_are_defined_only_if_each_parameter_is_used_once(shared):
    data = torch.randn(20, 6), torch.arange(20) % 3
    names = ["log_product_frobenius", "log_product_operator"]
    values = rc.measure(Shares(shared), data, names)
    assert all(f"its parameter first.{shared} 2 times" in values[f"{name}_error"] for name in names)
    assert all(math.isfinite(rc.measure(Shares(None), data, names)[name]) for name in names)


def test_measuring_draws_no_random_numbers():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)).eval()
    before = torch.get_rng_state()
    rc.measure(model, (torch.randn(20, 2, 3, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_logits_that_are_not_numbers_have_no_accuracy():
    model = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
    with torch.no_grad():
        model[0].bias[0] = torch.nan
    data = torch.randn(20, 6), torch.zeros(20, dtype=torch.int64)
    values = rc.measure(model, data, ["accuracy", "output_margin"], test=data)
    assert math.isnan(values["accuracy"])
    assert math.isnan(values["output_margin"])
    assert "not a finite number" in values["accuracy_error"]


@pytest.mark.filterwarnings("ignore:the model returns logits in torch.bfloat16")
def test_losses_and_margins_of_half_precision_logits_are_summed_in_float32():
    torch.manual_seed(0)
    network = nn.Linear(6, 3)
    data = torch.randn(500, 6), torch.arange(500) % 3
    values = rc.measure(lambda inputs: network(inputs).bfloat16(), data, ["accuracy", "output_margin"], test=data)
    logits = network(data[0]).detach().bfloat16().double()
    assert values["train_loss"] == pytest.approx(F.cross_entropy(logits, data[1]).item(), rel=1e-5)
    others = logits.scatter(1, data[1][:, None], -torch.inf).amax(1)
    margins = logits.gather(1, data[1][:, None])[:, 0] - others
    assert values["output_margin"] == pytest.approx(margins.quantile(0.1).item(), rel=1e-5)
    network = nn.Sequential(network, nn.Identity())
    network.register_forward_hook(lambda module, inputs, output: output.bfloat16())
    values = rc.measure(network, data, ["fisher_rao_norm"])
    assert math.isnan(values["fisher_rao_norm"])
    assert "bfloat16" in values["fisher_rao_norm_error"]


NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((None, DATA), "the model is NoneType: pass a torch module, a function"),
        ((NETWORK, (IMAGES, LABELS, LABELS)), "the training data are tuple: pass a pair of inputs and labels"),
        ((NETWORK, IMAGES), "the training data are Tensor: pass a pair"),
        ((NETWORK, DATA, "accuracies"), "measure 'accuracies' is unknown"),
        ((NETWORK, TensorDataset(IMAGES)), "each example must be a pair"),
    ],
)
def test_other_arguments_are_refused_in_one_line(arguments, reason):
    with pytest.raises(rc.InputError, match=reason) as caught:
        rc.measure(*arguments)
    assert "\n" not in str(caught.value)


def test_an_initial_model_that_is_no_module_is_refused():
    with pytest.raises(rc.InputError, match="the initial model is str"):
        rc.measure(NETWORK, DATA, initial="a")


def test_arrays_are_measured_as_tensors_and_no_names_give_no_values():
    names = ["output_margin"]
    assert rc.measure(NETWORK, (IMAGES.numpy(), LABELS.tolist()), names) == rc.measure(NETWORK, DATA, names)
    assert rc.measure(NETWORK, DATA, []) == {}


def test_norms_of_a_layer_with_a_hook_are_undefined():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    network[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    measured = rc.measure(network, DATA, ["log_product_frobenius"])
    assert math.isnan(measured["log_product_frobenius"])
    assert measured["log_product_frobenius_error"] == (
        "the layer 1 has a forward hook, which may change what its weight computes"
    )


SMALL = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
FEATURES = TensorDataset(VECTORS, LABELS)
IN_ORDER = range(len(VECTORS))
BACKWARDS = VECTORS.numpy()[::-1].copy(), LABELS.numpy()[::-1].copy()
SAME_DATA = {
    "views with negative strides": tuple(array[::-1] for array in BACKWARDS),
    "tables of pandas": (pd.DataFrame(VECTORS.numpy()), pd.Series(LABELS.numpy())),
    "a loader with a sampler that leaves out a batch": DataLoader(FEATURES, 7, sampler=IN_ORDER, drop_last=True),
    "a loader of batches": DataLoader(FEATURES, batch_sampler=BatchSampler(IN_ORDER, 7, drop_last=False)),
    "arrays of other types": (VECTORS.double().numpy(), LABELS.numpy().astype(np.uint8)),
    "a data set": FEATURES,
    "a loader": DataLoader(FEATURES, batch_size=7),
    "a loader that shuffles and leaves out a batch": DataLoader(FEATURES, batch_size=7, shuffle=True, drop_last=True),
}


@pytest.mark.parametrize("kind", SAME_DATA)
def test_data_are_the_same_in_any_form(kind):
    expected = rc.measure(SMALL, (VECTORS, LABELS), "all", test=(VECTORS, LABELS))
    assert repr(rc.measure(SMALL, SAME_DATA[kind], test=SAME_DATA[kind])) == repr(expected)


def test_all_measures_are_requested_by_one_word_also_in_a_list():
    expected = rc.measure(SMALL, (VECTORS, LABELS), "all")
    assert repr(rc.measure(SMALL, (VECTORS, LABELS), ["all"])) == repr(expected)
    more = rc.measure(SMALL, (VECTORS, LABELS), ["training_hessian_eigenvalue", "all", "accuracy"])
    assert "training_hessian_eigenvalue" in more.keys() - expected.keys()
    assert repr({name: more[name] for name in expected}) == repr(expected)
    with pytest.raises(rc.InputError, match="measure 'everything' is unknown; use one of all, accuracy"):
        rc.measure(SMALL, (VECTORS, LABELS), ["all", "everything"])


@pytest.mark.parametrize("number", [0, 1, 29])
def test_lengths_that_differ_are_named(number):
    with pytest.raises(rc.InputError, match=rf"{len(VECTORS)} inputs and {number} labels; pass one label for each input"):
        rc.measure(SMALL, (VECTORS, LABELS[:number]), "accuracy")


class Random(Dataset):
    """Examples whose inputs or labels are random from some index on."""

    def __init__(self, inputs_from=9999, labels_from=9999, number=50):
        self.inputs_from, self.labels_from, self.number = inputs_from, labels_from, number

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        inputs = torch.randn(8) if index >= self.inputs_from else torch.full((8,), torch.nan)
        return inputs, int(torch.randint(1000, ())) if index >= self.labels_from else 0


def by_hand(examples):
    inputs, labels = zip(*examples, strict=True)
    return torch.stack(inputs), torch.tensor(labels)


LOADERS = {
    "a data set": lambda data: data,
    "a loader": lambda data: DataLoader(data, 7),
    "a loader with a function of its own": lambda data: DataLoader(data, 7, collate_fn=by_hand),
    "a loader of batches": lambda data: DataLoader(data, batch_sampler=BatchSampler(range(len(data)), 7, drop_last=False)),
    "a data set of batches": lambda data: DataLoader(
        Batches(data), batch_size=None, sampler=range(-(-len(data) // 7)), collate_fn=lambda batch: batch
    ),
}


class Batches(Dataset):
    """Batches of seven examples of a data set."""

    def __init__(self, data):
        self.data = data

    def __getitem__(self, index):
        return by_hand([self.data[i] for i in range(7 * index, min(len(self.data), 7 * index + 7))])


@pytest.mark.parametrize("kind", LOADERS)
def test_random_examples_are_refused(kind):
    load = LOADERS[kind]
    for number in (50, 1000):
        for options, what in (({"inputs_from": number - 20}, "data"), ({"labels_from": number - 20}, "labels")):
            with pytest.raises(rc.InputError, match=f"the training {what} differ each time"):
                rc.measure(SMALL, load(Random(number=number, **options)))
        inputs, labels = as_pair(load(Random(number=number)), "training", {})  # NaN equals NaN
        assert inputs.shape == (number, 8)
        assert labels.shape == (number,)


def test_examples_in_random_order_are_refused():
    loader = DataLoader(FEATURES, 7, sampler=RandomSampler(FEATURES, replacement=True))
    with pytest.raises(rc.InputError, match="differ each time"):
        as_pair(loader, "training", {})


def test_a_sampler_that_leaves_out_a_batch_is_refused():
    loader = DataLoader(FEATURES, batch_sampler=BatchSampler(IN_ORDER, 7, drop_last=True))
    with pytest.raises(rc.InputError, match="drop_last=False"):
        rc.measure(SMALL, loader)


class PadsWithOtherClasses(nn.Module):
    """A trained network with more classes than the data, as one for ImageNet is on a few of its classes."""

    def forward(self, inputs):
        logits = torch.cat([inputs[:, :3], inputs[:, 3:].clamp(max=0)], dim=1)
        return F.pad(logits, (0, 500), value=-9.0)


def test_features_in_place_of_logits_are_named():
    inputs = 5 * F.one_hot(LABELS, 8) + VECTORS.abs()
    features = nn.Sequential(nn.Linear(8, 512), nn.ReLU())
    with pytest.warns(UserWarning, match="returns 512 values .* none of the 3 classes of the labels: accuracy and loss"):
        rc.measure(features, (inputs, LABELS), "accuracy")
    with warnings.catch_warnings(action="error"):
        assert rc.measure(PadsWithOtherClasses(), (inputs, LABELS), "accuracy")["train_accuracy"] == 1


@pytest.mark.filterwarnings("ignore:the model has parameters in torch.bfloat16")
def test_an_initial_model_in_half_precision_is_converted():
    initial = linear().bfloat16()
    names = ["distance_from_initialization", "frobenius_distance"]
    values = rc.measure(SMALL, (VECTORS, LABELS), names, initial=initial)
    assert values == rc.measure(SMALL, (VECTORS, LABELS), names, initial=linear().bfloat16().float())
    assert values["frobenius_distance"] > 0
    assert initial[0].weight.dtype == torch.bfloat16


WRAPPED = {
    "DataParallel": nn.DataParallel,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "torch.compile": torch.compile,
    "twice": lambda model: nn.DataParallel(torch.compile(model)),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrapped_networks_have_the_measures_of_the_network_inside(wrapper):
    wrapped, data = WRAPPED[wrapper](SMALL), (VECTORS, LABELS)
    values = rc.measure(wrapped, data, initial=WRAPPED[wrapper](linear()))
    assert repr(values) == repr(rc.measure(SMALL, data, initial=linear()))


def test_one_logit_has_the_measures_of_two_logits():
    one = linear(1)
    labels = (one(VECTORS)[:, 0] > 0.1).long()

    def two(inputs):
        logit = one(inputs)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)

    names = ["accuracy", "output_margin", "inverse_margin"]
    values = rc.measure(one, (VECTORS, labels), names, test=(VECTORS, labels))
    assert values == rc.measure(two, (VECTORS, labels), names, test=(VECTORS, labels))
    logit = one(VECTORS)[:, 0].detach()
    loss = F.binary_cross_entropy_with_logits(logit, labels.float()).item()
    assert values["train_loss"] == pytest.approx(loss, rel=1e-5)
    assert values["train_accuracy"] == ((logit > 0).long() == labels).double().mean()
    gradient = rc.measure(one, (VECTORS, labels), "gradient_norm")["gradient_norm"]
    F.binary_cross_entropy_with_logits(one(VECTORS)[:, 0], labels.float()).backward()
    squares = sum(parameter.grad.square().sum().item() for parameter in one.parameters())
    assert gradient == pytest.approx(math.sqrt(squares), rel=1e-4)


def test_an_estimator_predicts_names():
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    pipeline = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=2)).fit(VECTORS.numpy(), NAMES)
    accuracy = (pipeline.predict(VECTORS.numpy()) == NAMES).mean()
    for model in (pipeline, pipeline.predict, lambda inputs: pipeline.predict(inputs).tolist()):
        values = rc.measure(model, (VECTORS, NAMES), "accuracy", test=(VECTORS, NAMES))
        assert values["train_accuracy"] == values["test_accuracy"] == accuracy
    with pytest.raises(rc.InputError, match="labels are numbers, but the classes have names, such as 'cat'"):
        rc.measure(pipeline, (VECTORS, LABELS))


def test_without_test_data_the_values_of_the_training_set_are_computed():
    both = rc.measure(NETWORK, (IMAGES, LABELS), "accuracy", test=(IMAGES, LABELS))
    alone = rc.measure(NETWORK, (IMAGES, LABELS), "accuracy")
    for name in ("train_accuracy", "train_loss"):
        assert alone[name] == both[name]
    for name in ("test_accuracy", "test_loss", "generalization_gap", "test_error"):
        assert math.isnan(alone[name])
        assert alone[f"{name}_error"] == "there are no test data; pass test="


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [
        (F.one_hot(LABELS), "labels.argmax(1)"),
        (LABELS.float(), "labels.flatten().long()"),
        (LABELS[:, None], "labels.flatten().long()"),
    ],
)
def test_labels_in_another_form_are_refused_with_a_remedy(labels, remedy):
    with pytest.raises(rc.InputError, match=re.escape(f"such as {remedy}")):
        rc.measure(NETWORK, (IMAGES, labels), "accuracy")
    fixed = labels.argmax(1) if labels.dim() == 2 and labels.shape[1] > 1 else labels.flatten().long()
    assert torch.equal(fixed, LABELS)
