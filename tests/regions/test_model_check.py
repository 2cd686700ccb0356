"""Models that are not functions of their input are refused by every method; what is counted is counted right."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import regioncount as rc
from regioncount.regions import methods, model_check, operations, outputs

ANY_METHOD = [*methods.LATTICE_METHODS, *methods.EXACT_METHODS]
SEGMENTS = torch.randn(20, 2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
VECTORS = torch.randn(20, 2, 6, generator=torch.Generator().manual_seed(0))


def network(*extra):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), *extra, nn.ReLU(), nn.Linear(16, 4)).eval()


def convolutional(norm=None):
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 4, 3), norm or nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)]
    return nn.Sequential(*layers)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, values):
        return self.function(values)


class Branch(nn.Module):
    """Another network for a batch with a positive sum."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.other, self.network = nn.Linear(36, 4), network()

    def forward(self, values):
        return self.other(values.flatten(1)) if values.sum() > 0 else self.network(values)


class MovingAverage(nn.Module):
    """A module that changes a buffer in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, values):
        self.calls += 1
        return values


class Changed(nn.Module):
    """A module that changes a tensor of its own without a change of its output."""

    def __init__(self, change):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("empty", None)
        self.change = change

    def forward(self, values):
        self.change(self)
        return values


def replace_by_attribute(module):
    del module.seen
    module.seen = torch.ones(2)


NOT_FUNCTIONS = {
    "dropout": lambda: network(Function(lambda values: F.dropout(values, 0.1))),
    "noise": lambda: network(Function(lambda values: values + 0.1 * torch.randn_like(values))),
    "constant noise": lambda: network(Function(lambda values: values + torch.randn(16, dtype=values.dtype))),
    "batch statistics": lambda: convolutional(nn.BatchNorm2d(4, track_running_stats=False)).eval(),
    "batch mean": lambda: network(Function(lambda values: values - values.mean(dim=0))),
    "the first of the batch": lambda: network(Function(lambda values: values + values[0])),
    "a branch on the batch": Branch,
    "a branch on the size of the batch": lambda: network(Function(lambda values: -values if len(values) > 40 else values)),
    "the place in the batch": lambda: network(Function(lambda values: values * (torch.arange(len(values)) < 50)[:, None])),
    "a batch of one": lambda: network(Function(lambda values: -values if len(values) == 1 else values)),
    "a buffer": lambda: network(MovingAverage()),
    "a counter": lambda: network(MovingAverage(), Function(lambda values: values)),
    "a weight": lambda: network(Changed(lambda module: module.weight.data.mul_(0.9))),
    "a replaced buffer": lambda: network(Changed(lambda module: setattr(module, "seen", module.seen + 1))),
    "a resized buffer": lambda: network(Changed(lambda module: setattr(module.seen, "data", torch.zeros(3)))),
    "a converted buffer": lambda: network(Changed(lambda module: setattr(module.seen, "data", module.seen.half()))),
    "an infinite buffer": lambda: network(Changed(lambda module: module.seen.fill_(torch.inf))),
    "a deleted buffer": lambda: network(Changed(replace_by_attribute)),
    "a new buffer": lambda: network(Changed(lambda module: setattr(module, "empty", module.seen + 1))),
}


@pytest.mark.parametrize("method", ANY_METHOD)
@pytest.mark.parametrize("name", NOT_FUNCTIONS)
def test_a_model_that_gives_two_answers_is_refused(name, method):
    model = NOT_FUNCTIONS[name]()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(rc.InputError) as refused:
        rc.count_regions(model, SEGMENTS, method=method)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("method", ["auto", "grid"])
@pytest.mark.parametrize("layer", [nn.Dropout(0.5), None])
def test_a_module_in_training_mode_inside_a_function_is_refused_before_it_runs(method, layer):
    model = (network(layer) if layer else convolutional()).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(rc.InputError, match=r"training mode.*call model\.eval\(\)"):
        rc.count_regions(lambda inputs: model(inputs), SEGMENTS, method=method)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    counts = rc.count_regions(lambda inputs: model.eval()(inputs), SEGMENTS).counts
    assert counts.tolist() == rc.count_regions(model, SEGMENTS).counts.tolist()


def test_a_changed_tensor_is_named_and_a_buffer_of_nan_is_not_a_change():
    model = network(Changed(lambda module: module.seen.add_(1)))
    with pytest.raises(rc.InputError, match=r"the model changes 2\.seen during evaluation"):
        rc.count_regions(model, SEGMENTS)
    model = network(Changed(lambda module: None))
    model[2].seen.fill_(torch.nan)
    assert rc.count_regions(model, SEGMENTS).counts.tolist() == rc.count_regions(network(), SEGMENTS).counts.tolist()


@pytest.mark.parametrize("method", ANY_METHOD)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "without values"),
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 3, device="meta")), "without values"),
        (Function(lambda inputs: torch.zeros(len(inputs), 3 if len(inputs) > 2 else 2)), "depend on the other inputs"),
        (Function(lambda inputs: ["cat"] * len(inputs)), "number the classes"),
    ],
)
def test_models_that_cannot_be_evaluated_are_refused(model, message, method):
    with pytest.raises(rc.InputError, match=message):
        rc.count_regions(model, SEGMENTS, method=method)
    if method == "grid":
        with pytest.raises(rc.InputError, match=message):
            rc.measure(model, (SEGMENTS[:, 0], torch.zeros(len(SEGMENTS), dtype=torch.int64)))


@pytest.mark.parametrize("method", ANY_METHOD)
def test_vertices_without_values_are_refused(method):
    with pytest.raises(rc.InputError, match="one tensor with values"):
        rc.count_regions(network(), SEGMENTS.to("meta"), method=method)
    with pytest.raises(rc.InputError, match="one tensor with values"):
        rc.count_regions(network(), torch.nested.nested_tensor(list(SEGMENTS), layout=torch.jagged), method=method)


@pytest.mark.parametrize("method", [["grid"], None, 3, "gird"])
def test_an_unknown_method_is_refused(method):
    with pytest.raises(rc.InputError, match="use one of auto, grid, adaptive, exact, bounds"):
        rc.count_regions(network(), SEGMENTS, method=method)


@pytest.mark.parametrize("method", ["grid", "auto", "adaptive"])
def test_a_batch_larger_than_all_points_is_one_batch(method):
    expected = rc.count_regions(network(), SEGMENTS, method=method).counts
    assert rc.count_regions(network(), SEGMENTS, method=method, batch_size=10**30).counts.tolist() == expected.tolist()


@pytest.mark.parametrize("method", ["exact", "bounds"])
def test_exact_methods_have_no_connectivity(method):
    with pytest.raises(rc.InputError, match="uses no lattice; omit the connectivity"):
        rc.count_regions(network(), SEGMENTS, method=method, connectivity="lattice")


class Masked(nn.Module):
    """A model with one more class, whose logit is a large negative number: it is never predicted."""

    def __init__(self, model, mask):
        super().__init__()
        self.model, self.mask = model, mask

    def forward(self, values):
        logits = self.model(values)
        return torch.cat([logits, torch.full_like(logits[:, :1], self.mask)], dim=1)


@pytest.mark.parametrize("mask", [-1e3, -1e6, -1e9, -float("inf")])
@pytest.mark.parametrize("method", ["grid", "auto", "adaptive"])
def test_a_masked_class_does_not_hide_a_model_that_is_no_function(method, mask):
    expected = rc.count_regions(network(), SEGMENTS, method="grid").counts.tolist()
    assert rc.count_regions(Masked(network(), mask), SEGMENTS, method=method).counts.tolist() == expected
    for name in ("dropout", "noise", "batch mean"):
        with pytest.raises(rc.InputError):
            rc.count_regions(Masked(NOT_FUNCTIONS[name](), mask), SEGMENTS, method=method)


class SharedConvolution(nn.Module):
    """Two batch normalizations after one convolution, which torch.fx folds wrongly."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(36, 3)
        self.one, self.two = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
        for norm in (self.one, self.two):
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.02, 0.1)

    def forward(self, values):
        values = self.one(self.convolution(values)).relu()
        return self.head(self.two(self.convolution(values)).relu().flatten(1))


@pytest.mark.parametrize("mask", [-1e3, -1e9])
def test_a_masked_class_does_not_hide_a_wrong_fold(mask):
    model = SharedConvolution().eval()
    expected = rc.count_regions(model, SEGMENTS, method="grid").counts.tolist()
    assert rc.count_regions(Masked(model, mask), SEGMENTS).counts.tolist() == expected
    values = rc.measure(Masked(model, mask), (SEGMENTS[:, 0], torch.zeros(len(SEGMENTS)).long()), ["parameter_norm"])
    assert "folded network computes another function" in values["parameter_norm_error"]


@pytest.mark.parametrize("method", ["grid", "auto", "adaptive"])
def test_logits_of_a_wider_type_than_the_weights_are_counted_in_it(method):
    expected = rc.count_regions(network(), SEGMENTS, method="grid").counts.tolist()
    for offset in (0.0, 1e9):
        model = nn.Sequential(network(), Function(lambda logits, offset=offset: logits.double() + offset))
        assert rc.count_regions(model, SEGMENTS, method=method).counts.tolist() == expected
    if method == "grid":
        doubled = rc.count_regions(lambda inputs: network()(inputs).detach().numpy().astype(np.float64), SEGMENTS)
        assert doubled.counts.tolist() == expected


@given(st.integers(2, 5), st.integers(1, 6), st.integers(0, 2**32))
def test_the_scale_of_logits_ignores_masked_classes(classes, inputs, seed):
    logits = torch.randn(inputs, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = max(
        *((logits[:, c].max() - logits[:, c].min()).item() for c in range(classes)),
        *((row.sort().values[-1] - row.sort().values[-2]).item() for row in logits),
    )
    assert outputs.logit_scale(logits) == expected
    for mask in (-1e9, -float("inf")):
        masked = torch.cat([logits, torch.full((inputs, 1), mask, dtype=torch.float64)], dim=1)
        assert outputs.logit_scale(masked) == expected


@pytest.mark.parametrize("vertex", range(6))
def test_a_branch_that_a_single_vertex_takes_is_found(vertex):
    triangles = -torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(0))
    triangles.view(6, 6)[vertex] *= -0.1
    model = Function(lambda values: values if values.sum() > 0 else -values)
    with pytest.raises(rc.InputError, match="depend on the other inputs"):
        rc.count_regions(model, triangles)


def test_labels_must_be_the_same_in_the_same_batch():
    with pytest.raises(rc.InputError, match="different labels for the same input"):
        rc.count_regions(lambda inputs: torch.randint(3, (len(inputs),)), SEGMENTS)


def test_a_network_that_cannot_be_traced_is_refused_without_other_output(capfd):
    model = network(Function(lambda values: values if len(values) < 1000 else values * 1))
    with pytest.raises(rc.InputError, match="cannot trace"):
        rc.count_regions(model, SEGMENTS, method="exact")
    assert capfd.readouterr() == ("", "")


def test_half_of_the_points_of_the_check_are_vertices():
    points = model_check.sample_points(VECTORS)
    vertices = {tuple(vertex.tolist()) for vertex in VECTORS.flatten(0, 1)}
    assert len(points) == 32
    assert sum(tuple(point.tolist()) in vertices for point in points) == 16


def test_labels_must_not_depend_on_the_batch():
    model = network()
    with pytest.raises(rc.InputError, match="labels for an input depend on the other inputs"):
        rc.count_regions(lambda inputs: (model(inputs) - model(inputs).mean(0)).argmax(1), SEGMENTS)


@pytest.mark.parametrize("method", ["grid", "auto"])
def test_the_check_stays_within_the_batch_size(method):
    sizes = []
    model = network()
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    rc.count_regions(model, SEGMENTS, method=method, batch_size=5)
    assert max(sizes) <= 5


OUTPUTS = {
    "a tuple": (lambda x: (x[0, :3], x), "returned a tuple.*lambda inputs"),
    "a dictionary": (lambda x: {"out": x[:, :3]}, "returned a dict"),
    "nothing": (lambda x: None, "returned NoneType"),
    "complex logits": (lambda x: x[:, :3] + 1j, "complex"),
    "sparse logits": (lambda x: x[:, :3].to_sparse(), "sparse"),
    "text of two dimensions": (lambda x: np.array([["a"]] * len(x)), "text of shape"),
    "a probability": (lambda x: x[:, :1].sigmoid(), "as a probability.*logit"),
    "a clamped probability": (lambda x: x[:, :1].clamp(0, 1), "as a probability.*logit"),
    "one integer": (lambda x: x[:, :1].long(), "torch.int64 of shape"),
    "large labels": (lambda x: np.full(len(x), 2**63, np.uint64), "2\\^63"),
}


@pytest.mark.parametrize("method", ["grid", "auto"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_other_outputs_are_refused_in_one_line(name, method):
    model, message = OUTPUTS[name]
    with pytest.raises(rc.InputError, match=message):
        rc.count_regions(model, VECTORS, method=method)


@pytest.mark.parametrize("method", ANY_METHOD)
def test_the_first_part_of_a_tuple_is_counted_with_a_warning_if_another_may_be_the_logits(method):
    expected = rc.count_regions(network(), SEGMENTS, method=method).mean
    model = nn.Sequential(network(), Function(lambda logits: (logits, logits[:, :2])))
    with pytest.warns(UserWarning, match="returned a tuple: its first part"):
        assert rc.count_regions(model, SEGMENTS, method=method).mean == expected
    model = nn.Sequential(network(), Function(lambda logits: [logits, None]))
    assert rc.count_regions(model, SEGMENTS, method=method).mean == expected


@pytest.mark.parametrize("method", ANY_METHOD)
def test_one_logit_is_counted_as_two_logits(method):
    one = nn.Sequential(network(), Function(lambda logits: logits[:, :1])).eval()
    two = nn.Sequential(
        network(), Function(lambda logits: torch.cat([torch.zeros_like(logits[:, :1]), logits[:, :1]], dim=1))
    )
    counts = rc.count_regions(one, SEGMENTS, method=method).counts.tolist()
    assert counts == rc.count_regions(two, SEGMENTS, method=method).counts.tolist()
    if method == "grid":
        assert counts == rc.count_regions(lambda x: (one(x)[:, 0] > 0).long(), SEGMENTS).counts.tolist()


def test_a_logit_between_0_and_1_is_no_probability():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    with torch.no_grad():
        model[1].weight.mul_(1e-3)
        model[1].bias.fill_(0.5)
    assert rc.count_regions(model, SEGMENTS).mean == 1


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "torch.compile": torch.compile,
    "compiled inside": lambda model: nn.Sequential(torch.compile(model), nn.Identity()),
    "compiled in place": lambda model: model.compile() or model,
}


@pytest.mark.parametrize("method", ANY_METHOD)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_modules_are_counted_as_the_module_inside(wrapper, method):
    expected = rc.count_regions(network(), SEGMENTS, method=method).counts
    assert rc.count_regions(WRAPPERS[wrapper](network()), SEGMENTS, method=method).counts.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_module_in_half_precision_is_counted_as_its_float32_copy_with_a_warning(dtype):
    half = network().to(dtype)
    expected = rc.count_regions(network().to(dtype).float(), SEGMENTS).counts.tolist()
    with pytest.warns(UserWarning, match="a copy in float32"):
        assert rc.count_regions(half, SEGMENTS).counts.tolist() == expected
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}


class Converting(nn.Module):
    """A linear layer that converts its input to the type of its weights."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs):
        return self.layer(inputs.to(self.layer.weight.dtype))


@pytest.mark.parametrize("method", ["grid", "adaptive", "auto", "exact"])
@pytest.mark.parametrize("in_half", [(1, 2), (0, 1), (1,), (2,)])
def test_a_module_of_which_some_layers_are_in_half_precision_is_counted_in_float32(in_half, method):
    torch.manual_seed(0)
    layers = [nn.Linear(*size) for size in ((4, 12), (12, 12), (12, 5))]
    for layer in in_half:
        layers[layer].half()
    converting = [Converting(layer) for layer in layers]
    mixed = nn.Sequential(converting[0], nn.ReLU(), converting[1], nn.ReLU(), converting[2])
    segments = torch.randn(20, 2, 4, generator=torch.Generator().manual_seed(1))
    expected = rc.count_regions(copy.deepcopy(mixed).float(), segments, method=method).counts.tolist()
    with pytest.warns(UserWarning, match="has parameters in torch.float16: a copy in float32 is evaluated"):
        assert rc.count_regions(mixed, segments, method=method).counts.tolist() == expected
    assert [layer.weight.dtype == torch.float16 for layer in layers] == [number in in_half for number in range(3)]


@pytest.mark.parametrize("method", ["grid", "auto"])
def test_logits_in_half_precision_are_counted_with_a_warning(method):
    model = network()

    def half(inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return model(inputs)

    for function in (half, nn.Sequential(model, Function(Tensor.half))):
        with pytest.warns(UserWarning, match="returns logits in torch.*float16"):
            rc.count_regions(function, SEGMENTS, method=method)


def test_an_estimator_of_classes_that_are_whole_floats_is_counted():
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    points = np.random.default_rng(0).normal(size=(60, VECTORS[0, 0].numel()))
    labels = np.abs(points).argmax(1) % 3
    expected = rc.count_regions(DecisionTreeClassifier(random_state=0).fit(points, labels), VECTORS).counts.tolist()
    floats = DecisionTreeClassifier(random_state=0).fit(points, labels.astype(float))
    assert rc.count_regions(floats, VECTORS).counts.tolist() == expected
    with pytest.raises(rc.InputError, match="float64"):
        rc.count_regions(DecisionTreeRegressor(random_state=0).fit(points, labels), VECTORS)


def test_an_estimator_with_named_classes_is_counted():
    from sklearn.tree import DecisionTreeClassifier

    points = np.random.default_rng(0).normal(size=(60, VECTORS[0, 0].numel()))
    names = np.array(["cat", "dog", "elk"])[np.abs(points).argmax(1) % 3]
    tree = DecisionTreeClassifier(random_state=0).fit(points, names)
    numbers = {"cat": 0, "dog": 1, "elk": 2}
    expected = rc.count_regions(lambda x: np.array([numbers[name] for name in tree.predict(x)]), VECTORS).counts.tolist()
    for model in (tree, tree.predict, lambda x: list(tree.predict(x))):
        assert rc.count_regions(model, VECTORS).counts.tolist() == expected
    assert rc.count_regions(tree, VECTORS.numpy()).counts.tolist() == expected


class Answer(dict):
    """An output with the attribute `logits`, as that of a model of Hugging Face."""

    @property
    def logits(self):
        return self["logits"]


@pytest.mark.parametrize("method", ANY_METHOD)
def test_the_logits_of_an_output_are_counted(method):
    model = nn.Sequential(network(), Function(lambda logits: Answer(logits=logits, state=None)))
    assert rc.count_regions(model, SEGMENTS, method=method).mean == rc.count_regions(network(), SEGMENTS, method=method).mean


@pytest.mark.parametrize("scale", [2**31, 2**32, -(2**40), 2**62])
def test_labels_of_any_size_are_distinct(scale):
    counts = rc.count_regions(lambda x: (x[:, 0] > 0).long() * scale, VECTORS).counts
    assert counts.tolist() == rc.count_regions(lambda x: (x[:, 0] > 0).long(), VECTORS).counts.tolist()
    assert counts.max() == 2
    extremes = rc.count_regions(lambda x: torch.where(x[:, 0] > 0, 2**63 - 1, -(2**63)), VECTORS).counts
    assert extremes.tolist() == counts.tolist()


@pytest.mark.parametrize("method", ANY_METHOD)
def test_vertices_may_be_arrays_and_must_be_floating_point(method):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    expected = rc.count_regions(model, VECTORS, method=method).counts.tolist()
    for vertices in (VECTORS.numpy(), VECTORS.numpy().tolist(), VECTORS.double()):
        assert rc.count_regions(model, vertices, method=method).counts.tolist() == expected
    for wrong, reason in ((VECTORS.long(), "floating point"), (VECTORS * torch.nan, "finite"), ("abc", "vertices")):
        with pytest.raises(rc.InputError, match=reason):
            rc.count_regions(model, wrong, method=method)


@pytest.mark.parametrize("argument", ["resolution", "batch_size"])
@pytest.mark.parametrize("value", [20.0, 0, True, "20"])
def test_numbers_of_points_are_whole(argument, value):
    with pytest.raises(rc.InputError, match=f"{argument}="):
        rc.count_regions(network(), SEGMENTS, **{argument: value})


def pruned():
    model = network()
    prune.l1_unstructured(model[1], "weight", amount=0.5)
    model(SEGMENTS[:, 0])
    return model


def normalized(function):
    model = network()
    function(model[1])
    model(SEGMENTS[:, 0])
    return model.eval()


def exported(model):
    any_batch = ({0: torch.export.Dim.DYNAMIC},)
    return torch.export.export(model, (SEGMENTS[:8, 0].contiguous(),), dynamic_shapes=any_batch).module()


WRAPPED = {
    "pruned": pruned,
    "weight norm": lambda: normalized(parametrizations.weight_norm),
    "spectral norm": lambda: normalized(parametrizations.spectral_norm),
    "weight norm as a hook": lambda: normalized(nn.utils.weight_norm),
    "exported": lambda: torch.export.export(
        network(), (SEGMENTS[:8, 0].contiguous(),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    ).module(),
    "scripted": lambda: torch.jit.script(network()),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(network())),
    "in place": lambda: nn.Sequential(nn.ReLU(inplace=True), network()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ANY_METHOD)
@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_modules_are_counted_as_on_the_grid_or_refused(name, method):
    model = WRAPPED[name]()
    vertices = SEGMENTS.clone()
    resolution = 200 if method in methods.LATTICE_METHODS else 2000
    grid = rc.count_regions(lambda inputs: model(inputs), vertices, method="grid", resolution=resolution).counts
    if method in methods.EXACT_METHODS and name in ("scripted", "frozen"):
        with pytest.raises(rc.InputError):
            rc.count_regions(model, vertices, method=method)
    else:
        counts = rc.count_regions(model, vertices, method=method).counts
        assert (counts == grid).mean() >= (1 if method in methods.LATTICE_METHODS else 0.95)
    assert torch.equal(vertices, SEGMENTS)


NOT_PIECEWISE_LINEAR = {
    "rounding": lambda values: torch.div(values, 0.5, rounding_mode="floor"),
    "a transposed batch": lambda values: values @ values.T @ values,
    "the first of the batch": lambda values: values + values[0],
    "a stack": lambda values: torch.stack([values[:, 0], values[:, 1]]).T,
    "the batch size": lambda values: values / values.shape[0],
}


@pytest.mark.parametrize("method", methods.EXACT_METHODS)
@pytest.mark.parametrize("name", NOT_PIECEWISE_LINEAR)
def test_exact_methods_refuse_other_functions_or_count_them_right(name, method):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 2), Function(NOT_PIECEWISE_LINEAR[name]), nn.Linear(2, 3)).eval()
    if name == "a stack":  # a function of each input, though its intermediate values have no batch dimension
        try:
            counts = rc.count_regions(model, VECTORS, method=method).counts
        except rc.InputError:
            return
        assert counts.tolist() == rc.count_regions(model, VECTORS, method="grid", resolution=5000).counts.tolist()
        return
    with pytest.raises(rc.InputError):
        rc.count_regions(model, VECTORS, method=method)


@pytest.mark.parametrize("call", [{"min": -0.2}, {"max": 0.3}, {"min": -0.2, "max": 0.3}])
def test_thresholds_given_by_name_are_followed(call):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 12), Function(lambda values: torch.clamp(values, **call)), nn.Linear(12, 4)).eval()
    exact = rc.count_regions(model, VECTORS, method="exact")
    grid = rc.count_regions(model, VECTORS, method="grid", resolution=5000)
    assert exact.counts.tolist() == grid.counts.tolist()
    assert exact.exact.pieces.max() > 1


def test_a_wrong_list_of_operations_is_noticed(monkeypatch):
    """A threshold that is missing from the table gives too few pieces; the network itself disagrees."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU6(), nn.Linear(12, 4)).eval()
    monkeypatch.setitem(operations.THRESHOLDS, "relu6", lambda: (0.5,))
    monkeypatch.setitem(operations.THRESHOLDS, "hardtanh", lambda low, high: (0.5,))
    monkeypatch.setitem(operations.THRESHOLDS, "clamp", lambda low, high: (0.5,))
    with pytest.raises(rc.InputError, match="disagrees with the network"):
        rc.count_regions(model, 3 * VECTORS, method="exact")


def test_masked_classes_are_counted_with_and_without_screening(monkeypatch):
    mask = torch.tensor([0.0, -torch.inf, 0.0, 0.0])
    model = nn.Sequential(network(), Function(lambda logits: logits + mask.to(logits))).eval()
    expected = rc.count_regions(lambda inputs: model(inputs), SEGMENTS).counts
    monkeypatch.setattr("regioncount.regions.screening.fast_bfloat16", lambda device: True)
    for method in ("auto", "adaptive"):
        result = rc.count_regions(model, SEGMENTS, method=method)
        assert result.counts.tolist() == expected.tolist()
        assert result.screening_bound is None


def test_masked_classes_are_counted_exactly_in_triangles():
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    triangles = 3 * torch.randn(3, 3, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([0.0, -torch.inf, 0.0, 0.0])
    masked = nn.Sequential(model, Function(lambda logits: logits + mask.to(logits))).eval()
    without = nn.Sequential(model, Function(lambda logits: torch.cat([logits[:, :1], logits[:, 2:]], 1))).eval()
    expected = rc.count_regions(without, triangles, method="exact")
    assert expected.counts.max() > 1
    assert rc.count_regions(masked, triangles, method="exact").counts.tolist() == expected.counts.tolist()
    infinite = nn.Sequential(model, Function(lambda logits: logits + mask.abs().to(logits))).eval()
    with pytest.raises(rc.InputError, match="infinite"):
        rc.count_regions(infinite, triangles, method="exact")


@pytest.mark.parametrize("method", ["grid", "auto"])
def test_a_model_that_requires_contiguous_images_gets_them(method):
    torch.manual_seed(1)
    layer = nn.Linear(75, 3)
    vertices = torch.randn(20, 2, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    model = Function(lambda images: layer(images.view(len(images), -1))).eval()
    expected = rc.count_regions(lambda images: layer(images.flatten(1)), vertices).counts
    assert rc.count_regions(model, vertices, method=method).counts.tolist() == expected.tolist()


def test_counting_a_parametrized_module_leaves_it_as_it_was():
    model = normalized(parametrizations.weight_norm)
    before = model(SEGMENTS[:, 0])
    rc.count_regions(model, SEGMENTS, method="exact")
    assert torch.equal(model(SEGMENTS[:, 0]), before)
    assert hasattr(model[1], "parametrizations")


class Spike(nn.Module):
    """Flat logits with a spike that is 4 % of the line wide."""

    def forward(self, x):
        spike = (0.02 - (x[:, 0] - 0.53).abs()).relu()
        return torch.stack([torch.full_like(spike, 0.01), spike], dim=1)


def test_auto_warns_where_the_grid_disagrees():
    line = torch.tensor([[0.0], [1.0]]).expand(100, 2, 1)
    with pytest.warns(UserWarning, match="method=auto counts 1 regions .* gives 3"):
        rc.count_regions(Spike(), line)
    assert rc.count_regions(Spike(), line, method="grid").mean == 3


@pytest.mark.filterwarnings("error")
def test_auto_does_not_warn_where_it_agrees():
    rc.count_regions(network(), SEGMENTS.repeat(5, 1, 1, 1, 1))


@pytest.mark.parametrize("seed", range(4))
def test_bounds_end_where_pooled_values_are_equal_up_to_rounding(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)),
        nn.ReplicationPad2d(1),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.ReflectionPad2d(1),
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(108, 4),
    ).eval()
    lines = torch.randn(4, 2, 16)
    assert rc.count_regions(model, lines, method="bounds").counts.tolist() == (
        rc.count_regions(model, lines, method="exact").counts.tolist()
    )
