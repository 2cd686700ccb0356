"""Flatness, compared with slow explicit computations on small networks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from regioncount.errors import InputError
from regioncount.measures import flatness, gradients, pacbayes, value
from regioncount.measures.measured_model import from_tensors
from regioncount.measures.weights import SEED, as_vector, loss_and_gradient

CLASSES = 3


def small_network(points=60, steps=0, seed=0, hidden=5, gain=1.0):
    """Return a network of one hidden layer with in-place ReLU, trained for some steps on labels of a linear model."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, CLASSES))
    initial = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, CLASSES))
    initial.load_state_dict(network.state_dict())
    inputs = torch.randn(points, 4)
    labels = (inputs @ torch.randn(4, CLASSES)).argmax(dim=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    with torch.no_grad():
        network[2].weight *= gain
        network[2].bias *= gain
    network.zero_grad()
    return from_tensors(network, (inputs, labels), None, initial)


@pytest.fixture(scope="module")
def trained():
    return small_network(steps=200)


def logistic_model():
    """Return a linear model of two classes and one point, for which measures are known in closed form."""
    torch.manual_seed(3)
    network = nn.Linear(4, 2)
    return from_tensors(network, (torch.tensor([[1.0, -2.0, 0.5, 1.5]]), torch.tensor([1])))


def vector_of(measured):
    return torch.cat([parameter.detach().flatten() for parameter in measured.network.parameters()])


def loss_of_vector(measured, dtype=torch.float32):
    """Return L over all sampled points as a function of all weights in one vector."""
    inputs, labels = measured.sample
    inputs = inputs.to(dtype)
    shapes = {name: parameter.shape for name, parameter in measured.network.named_parameters()}

    def loss(vector):
        parts = vector.split([shape.numel() for shape in shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return cross_entropy(functional_call(measured.network, weights, (inputs,)), labels)

    return loss


def softplus(x):
    return math.log1p(math.exp(x))


def test_sharpness_of_logistic_loss_in_closed_form():
    measured = logistic_model()
    x = torch.cat([measured.sample[0][0], torch.ones(1)]).double()
    weights = torch.cat([measured.network[0].weight, measured.network[0].bias[:, None]], dim=1).detach().double()
    margin = (weights[1] - weights[0]) @ x
    steepest = x.norm() * math.sqrt(2)
    expected = softplus(-margin + flatness.RADIUS * steepest) - softplus(-margin)
    assert flatness.sharpness(measured) == pytest.approx(expected, rel=1e-4)
    steepest = (weights * x).norm()
    expected = softplus(-margin + flatness.ADAPTIVE_RADIUS * steepest) - softplus(-margin)
    assert flatness.adaptive_sharpness(measured) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("steps", [0, 200])
@pytest.mark.parametrize("adaptive", [False, True])
def test_random_search_finds_nothing_sharper(steps, adaptive):
    measured = small_network(steps=steps, points=30, hidden=2)
    radius = flatness.ADAPTIVE_RADIUS if adaptive else flatness.RADIUS
    sharpness = (flatness.adaptive_sharpness if adaptive else flatness.sharpness)(measured)
    vector, loss = vector_of(measured), loss_of_vector(measured)
    generator = torch.Generator().manual_seed(1)
    highest, centre = 0.0, torch.zeros_like(vector)
    with torch.no_grad():
        start = loss(vector)
        for spread in (1.0, 0.5, 0.2, 0.1, 0.05):  # first in the whole ball, then around the best offset
            offsets = centre + spread * radius * torch.nn.functional.normalize(
                torch.randn(1500, len(vector), generator=generator), dim=1
            )
            offsets *= (radius / offsets.norm(dim=1, keepdim=True)).clamp(max=1)
            moves = offsets * vector.abs() if adaptive else offsets
            rises = torch.vmap(loss)(vector + moves) - start
            if rises.max() > highest:
                highest, centre = rises.max().item(), offsets[rises.argmax()]
    assert 0.7 * sharpness < highest < 1.02 * sharpness


def test_the_worst_offset_lies_in_the_ball(trained, monkeypatch):
    evaluated = []

    def recorded(measured, weights, batches):
        evaluated.append(as_vector(weights))
        return loss_and_gradient(measured, weights, batches)

    monkeypatch.setattr(flatness, "loss_and_gradient", recorded)
    weights = vector_of(trained).double()
    flatness.sharpness(trained)
    assert evaluated
    assert max((vector - weights).norm() for vector in evaluated) <= flatness.RADIUS * (1 + 1e-5)
    evaluated.clear()
    flatness.adaptive_sharpness(trained)
    assert evaluated
    assert max(((vector - weights) / weights.abs()).norm() for vector in evaluated) <= flatness.ADAPTIVE_RADIUS * (1 + 1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_ascent_reaches_what_small_steps_reach(adaptive):
    """Compare with 2,000 small steps along the gradient, from the same point."""
    for seed in range(3):
        measured = small_network(steps=100, seed=seed, hidden=8)
        radius = flatness.ADAPTIVE_RADIUS if adaptive else flatness.RADIUS
        vector, loss = vector_of(measured).double(), loss_of_vector(measured, torch.float64)
        scale = vector.abs() if adaptive else torch.ones_like(vector)
        rise = torch.func.grad_and_value(lambda offset: loss(vector + scale * offset))  # noqa: B023
        offset, highest = torch.zeros_like(vector), 0.0
        for _ in range(2000):
            slope, value = rise(offset)
            highest = max(highest, value.item())
            offset = offset + 0.02 * radius * slope / slope.norm()
            offset *= min(1.0, radius / offset.norm().item())
        found = (flatness.adaptive_sharpness if adaptive else flatness.sharpness)(measured)
        assert found == pytest.approx(highest - loss(vector).item(), rel=0.01)


@pytest.mark.parametrize("adaptive", [False, True])
def test_average_sharpness_is_near_its_expectation(adaptive, monkeypatch):
    measured = small_network(gain=20.0)
    deviation = flatness.ADAPTIVE_DEVIATION if adaptive else flatness.DEVIATION
    vector, loss = vector_of(measured), loss_of_vector(measured)
    noise = torch.randn(50_000, len(vector), generator=torch.Generator().manual_seed(1)) * deviation
    with torch.no_grad():
        rises = torch.vmap(loss, chunk_size=5000)(vector + (noise * vector.abs() if adaptive else noise)) - loss(vector)
    monkeypatch.setattr(flatness, "DRAWS", 300)
    name = "adaptive_average_sharpness" if adaptive else "average_sharpness"
    columns = getattr(flatness, name)(measured)
    error = rises.std().item() / math.sqrt(300)
    assert abs(columns[name] - rises.mean().item()) < 4 * error
    assert columns[f"{name}_standard_error"] == pytest.approx(error, rel=0.25)


def test_curvature_equals_that_of_the_exact_hessian(trained):
    for measured in (trained, small_network(seed=2)):
        hessian = torch.func.hessian(loss_of_vector(measured))(vector_of(measured)).double()
        product, size = flatness._sample_hessian(measured)
        columns = torch.stack([product(unit) for unit in torch.eye(size)])
        assert torch.allclose(columns.double(), hessian, atol=1e-6 * hessian.abs().max() + 1e-8, rtol=1e-4)
        assert flatness.hessian_eigenvalue(measured) == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-3)


def test_training_curvature_is_that_of_the_whole_training_set_without_folding():
    torch.manual_seed(4)
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, CLASSES))
    inputs, labels = torch.randn(1500, 4), torch.randint(CLASSES, (1500,))
    network(3 * inputs + 1)  # updates the running statistics
    sizes = [parameter.numel() for parameter in network.parameters()]
    network.eval()

    def loss(vector):
        parts = zip(network.named_parameters(), vector.split(sizes), strict=True)
        weights = {name: part.view(parameter.shape) for (name, parameter), part in parts}
        return cross_entropy(functional_call(network, weights, (inputs,)), labels)

    vector = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    expected = torch.linalg.eigvalsh(torch.func.hessian(loss)(vector).double())[-1].item()
    network.train()
    measured = from_tensors(network, (inputs, labels))
    assert flatness.training_hessian_eigenvalue(measured) == pytest.approx(expected, rel=1e-2)
    assert network.training
    assert flatness.hessian_eigenvalue(measured) != pytest.approx(expected, rel=1e-2)  # folded, and of 200 points


def test_hessian_trace_is_unbiased_and_each_estimate_is_close(trained, monkeypatch):
    trace = torch.func.hessian(loss_of_vector(trained))(vector_of(trained)).double().trace().item()
    estimates, errors = [], []
    for seed in range(40):
        monkeypatch.setattr(flatness, "SEED", seed)
        flatness._sample_krylov.cache_clear()
        columns = flatness.hessian_trace(trained)
        estimates.append(columns["hessian_trace"])
        errors.append(columns["hessian_trace_standard_error"])
    flatness._sample_krylov.cache_clear()
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert math.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(estimates), rel=0.4)
    assert abs(np.mean(estimates) - trace) < 4 * error + 1e-5 * trace
    assert np.abs(np.array(estimates) - trace).max() < 0.5 * trace


def test_gradient_norm_and_variance_by_loops():
    measured = small_network(points=230)
    inputs, labels = measured.sample
    order = torch.randperm(230, generator=torch.Generator().manual_seed(SEED))
    gradient = torch.func.grad(loss_of_vector(measured))(vector_of(measured))
    assert gradients.gradient_norm(measured) == pytest.approx(gradient.norm().item(), rel=1e-5)
    minibatch_gradients = []
    for first in range(0, 200, 50):
        indices = order[first : first + 50]
        minibatch = from_tensors(measured.model, (inputs[indices], labels[indices]))
        minibatch_gradients.append(torch.func.grad(loss_of_vector(minibatch))(vector_of(minibatch)).double())
    mean = sum(minibatch_gradients) / 4
    expected = sum((gradient - mean).square().sum() for gradient in minibatch_gradients) / 4
    assert gradients.gradient_variance(measured) == pytest.approx(expected.item(), rel=1e-4)


def test_the_variance_over_given_minibatches():
    measured = small_network(points=120)
    inputs, labels = measured.sample
    batches = list(zip(inputs.split(40), labels.split(40), strict=True))
    weights = list(measured.network.parameters())
    rows = [torch.autograd.grad(cross_entropy(measured.network(x), y), weights) for x, y in batches]
    flat = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).double()
    expected = (flat - flat.mean(dim=0)).square().sum(dim=1).mean()
    assert gradients.variance_over_batches(measured, batches) == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(InputError, match="1 minibatch: two are needed"):
        gradients.variance_over_batches(measured, batches[:1])


def test_gradient_variance_needs_two_minibatches():
    with pytest.raises(InputError, match="minibatches"):
        gradients.gradient_variance(small_network(points=99))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 30).flatmap(
        lambda size: st.tuples(
            arrays(float, size, elements=st.floats(-100, 100).map(lambda x: round(x, 2))), st.integers(0, 2**31)
        )
    )
)
def test_lanczos_finds_the_largest_eigenvalue_and_the_trace_on_its_space(case):
    values, seed = case
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    matrix = torch.from_numpy((rotation * values) @ rotation.T).float()
    found, basis, trace = flatness.lanczos(lambda vector: matrix @ vector, len(values))
    scale = np.abs(values).max() + 1e-6
    assert found == pytest.approx(values.max(), abs=0.02 * scale)
    assert torch.allclose(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-4)
    assert trace == pytest.approx((basis.T @ matrix @ basis).trace().item(), abs=1e-3 * scale)


@given(st.integers(-60, 60), st.integers(0, 50), st.integers(0, 50), st.data())
def test_the_last_step_at_which_a_predicate_holds(first, length, stride, data):
    last = first + length
    start = data.draw(st.integers(first, last))
    threshold = data.draw(st.integers(first - 1, last))  # first - 1: it holds nowhere
    evaluated = []

    def predicate(step):
        evaluated.append(step)
        return step <= threshold

    assert pacbayes.last_true(predicate, start, stride + 1, (first, last)) == threshold
    assert all(first <= step <= last for step in evaluated)
    assert len(set(evaluated)) == len(evaluated)


def test_a_rough_search_does_not_change_the_noise(trained, monkeypatch):
    for magnitude in (False, True):
        search = (pacbayes.magnitude_noise if magnitude else pacbayes.noise).__wrapped__
        expected = search(trained)
        for points, draws in ((1, 1), (10, 2), (60, 10)):
            monkeypatch.setattr(pacbayes, "ROUGH_POINTS", points)
            monkeypatch.setattr(pacbayes, "ROUGH_DRAWS", draws)
            assert search(trained) == expected


@pytest.mark.parametrize("magnitude", [False, True])
def test_noise_is_the_largest_tolerated_level(trained, magnitude):
    inputs, labels = trained.sample
    network = trained.network

    def accuracy(sigma):
        accuracies = []
        for draw in range(pacbayes.NOISE_DRAWS):
            generator = torch.Generator().manual_seed(SEED + draw)
            weights = {}
            for name, weight in network.named_parameters():
                variance = sigma**2 * weight**2 + pacbayes.MAGNITUDE_EPSILON**2 if magnitude else sigma**2 + 0 * weight
                weights[name] = weight + variance.sqrt() * torch.randn(weight.shape, generator=generator)
            accuracies.append((functional_call(network, weights, (inputs,)).argmax(dim=1) == labels).double().mean().item())
        return np.mean(accuracies)

    sigma = (pacbayes.magnitude_noise if magnitude else pacbayes.noise)(trained)
    fitted = accuracy(0.0) if not magnitude else (network(inputs).argmax(dim=1) == labels).double().mean().item()
    assert accuracy(sigma) >= fitted - 0.1 - 1e-9
    assert accuracy(1.2 * sigma) < fitted - 0.1
    measure = pacbayes.pacbayes_magnitude_flatness if magnitude else pacbayes.pacbayes_flatness
    assert measure(trained) == 1 / sigma**2


def test_pacbayes_bounds_by_numpy(trained):
    after = np.concatenate([p.detach().double().numpy().ravel() for p in trained.model.parameters()])
    before = np.concatenate([p.detach().double().numpy().ravel() for p in trained.initial().parameters()])
    n, sigma, s = 60, pacbayes.noise(trained), pacbayes.magnitude_noise(trained)
    for vector, measure in ((after, pacbayes.pacbayes_origin), (after - before, pacbayes.pacbayes_initialization)):
        bound = np.sum(vector**2) / (4 * sigma**2) + np.log(n / sigma) + 10
        assert measure(trained) == pytest.approx(np.sqrt(bound / n), rel=1e-6)
    for vector, measure in (
        (after, pacbayes.pacbayes_magnitude_origin),
        (after - before, pacbayes.pacbayes_magnitude_initialization),
    ):
        terms = np.log((1e-6 + (s**2 + 1) * np.sum(vector**2) / len(vector)) / (1e-6 + s**2 * vector**2))
        bound = terms.sum() / 4 + np.log(n / s) + 10
        assert measure(trained) == pytest.approx(np.sqrt(bound / n), rel=1e-6)


def test_noise_that_does_not_lower_the_accuracy_is_an_error():
    measured = small_network()
    always_right = from_tensors(measured.model, (measured.sample[0], measured.model(measured.sample[0]).argmax(dim=1)))
    constant = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    labels = torch.zeros(60, dtype=torch.int64)
    with pytest.raises(InputError, match="does not lower"):
        pacbayes.pacbayes_flatness(from_tensors(constant, (measured.sample[0], labels)))
    assert pacbayes.pacbayes_flatness(always_right) > 0


def test_bounds_without_initial_weights_are_an_error(trained):
    measured = from_tensors(trained.model, trained.sample)
    for name in ("pacbayes_initialization", "pacbayes_magnitude_initialization"):
        assert "before training" in value(name, measured)[f"{name}_error"]


MEASURES = [
    flatness.sharpness,
    flatness.adaptive_sharpness,
    flatness.average_sharpness,
    flatness.adaptive_average_sharpness,
    flatness.hessian_eigenvalue,
    flatness.hessian_trace,
    flatness.training_hessian_eigenvalue,
    pacbayes.pacbayes_flatness,
    pacbayes.pacbayes_magnitude_flatness,
    gradients.gradient_norm,
    gradients.gradient_variance,
]


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.__name__)
def test_the_model_is_not_changed_and_values_are_reproducible(measure):
    first, second = small_network(points=100, steps=50), small_network(points=100, steps=50)
    first.model.train()
    before = {name: weight.clone() for name, weight in first.model.state_dict().items()}
    folded = {name: weight.clone() for name, weight in first.network.state_dict().items()}
    torch.manual_seed(7)
    with torch.no_grad():
        result = measure(first)
    torch.manual_seed(8)
    assert result == measure(second)
    assert all(torch.equal(weight, before[name]) for name, weight in first.model.state_dict().items())
    assert all(torch.equal(weight, folded[name]) for name, weight in first.network.state_dict().items())
    assert first.model.training
    assert all(parameter.grad is None for parameter in first.network.parameters())


def test_fewer_points_are_evenly_spaced():
    measured = small_network(points=60)
    labels = torch.cat([labels for _, labels in measured.sample_batches(points=7)])
    expected = torch.linspace(0, 59, 7, dtype=torch.float64).round().long()
    assert torch.equal(labels, measured.sample[1][expected])
    assert sum(len(labels) for _, labels in measured.sample_batches(points=100)) == 60
