"""The training loop: what it computes, that it repeats itself, and that it goes on where it stopped."""

import copy
import functools
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from regioncount import data, models, registry, training
from regioncount.config import RunConfig, parse_run
from regioncount.errors import InputError
from regioncount.measures.measured_model import evaluate, split_batches
from regioncount.training import loop
from regioncount.training.depthwise import fast_depthwise, replaced

CPU = torch.device("cpu")
DIGITS = data.load("digits", train_size=130)
OPTIONS = {"momentum": 0.9, "nesterov": False, "betas": [0.9, 0.99], "alpha": 0.9, "rho": 0.9}


def configuration(**changes) -> RunConfig:
    plain = {
        "dataset": {"name": "digits", "train_size": 130},
        "model": {"name": "mlp", "width": 12, "depth": 1},
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "weight_decay": 1e-3, "momentum": 0.9, "nesterov": False},
        "schedule": {"name": "cosine"},
        "batch_size": 32,
        "epochs": 4,
    }
    return parse_run({**plain, **changes})


def new_model(config: RunConfig):
    options = {key: value for key, value in config.model.items() if key != "name"}
    return training.initialize(
        lambda: models.build(config.model["name"], 10, DIGITS.in_channels, image_size=DIGITS.image_size, **options),
        config.seed,
    )


def train(config: RunConfig, **more):
    model = new_model(config)
    history = training.fit(model, DIGITS, config, device=CPU, precision="float32", **more)
    return model, history


def assert_same_weights(one, other):
    for (name, first), second in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(first, second), name


def test_sgd_with_momentum_is_the_textbook_update():
    """Against the update written out: v = m v + (g + wd w), w = w - lr v, in the order of batches that the seed gives."""
    config = configuration(schedule={"name": "multistep", "milestones": [2, 3], "gamma": 0.5})
    model, history = train(config)
    slow = new_model(config)
    weights = list(slow.parameters())
    velocity = [torch.zeros_like(w) for w in weights]
    images, labels = DIGITS.normalize(DIGITS.train.images), DIGITS.train.labels
    for epoch, rate in zip(range(1, 5), [0.1, 0.1, 0.05, 0.025], strict=True):
        assert math.isclose(history[epoch - 1]["learning_rate"], rate)
        generator = torch.Generator().manual_seed(loop._epoch_seed(config.seed, epoch))
        order = torch.randperm(130, generator=generator)
        losses = []
        for batch in order.split(32):
            loss = cross_entropy(slow(images[batch]), labels[batch])
            losses += [loss.item()] * len(batch)
            for w, v, g in zip(weights, velocity, torch.autograd.grad(loss, weights), strict=True):
                v.mul_(0.9).add_(g + 1e-3 * w.detach())
                w.data.sub_(rate * v)
        assert len(losses) == 130  # the last partial batch is kept
        assert math.isclose(history[epoch - 1]["train_loss"], sum(losses) / 130, rel_tol=1e-5)
    for fast, w in zip(model.parameters(), weights, strict=True):
        assert torch.allclose(fast, w, atol=1e-5)


def with_sam(rho: float, **changes) -> RunConfig:
    options = {"learning_rate": 0.1, "weight_decay": 1e-3, "momentum": 0.9, "nesterov": False}
    return configuration(optimizer={"name": "sam", "rho": rho, **options}, **changes)


def test_sam_is_sgd_on_the_gradient_uphill():
    """Against Foret et al. 2020, equations 2 and 3, written out; the network has normalization, in training mode at both
    places, whose running statistics are those of the first."""
    config = with_sam(0.5, model={"name": "small_cnn", "width": 4}, epochs=2, schedule={"name": "constant"})
    model, history = train(config)
    slow = new_model(config).train()
    weights = list(slow.parameters())
    velocity = [torch.zeros_like(w) for w in weights]
    images, labels = DIGITS.normalize(DIGITS.train.images), DIGITS.train.labels
    for epoch in (1, 2):
        generator = torch.Generator().manual_seed(loop._epoch_seed(config.seed, epoch))
        losses = []
        for batch in torch.randperm(130, generator=generator).split(32):
            loss = cross_entropy(slow(images[batch]), labels[batch])
            losses += [loss.item()] * len(batch)
            slopes = torch.autograd.grad(loss, weights)
            length = sum(g.square().sum() for g in slopes).sqrt()
            uphill = copy.deepcopy(slow)
            for w, g in zip(uphill.parameters(), slopes, strict=True):
                w.data.add_(0.5 * g / length)
            loss = cross_entropy(uphill(images[batch]), labels[batch])
            for w, v, g in zip(weights, velocity, torch.autograd.grad(loss, uphill.parameters()), strict=True):
                v.mul_(0.9).add_(g + 1e-3 * w.detach())
                w.data.sub_(0.1 * v)
        assert math.isclose(history[epoch - 1]["train_loss"], sum(losses) / 130, rel_tol=1e-4)
    for (name, fast), expected in zip(model.state_dict().items(), slow.state_dict().values(), strict=True):
        assert torch.allclose(fast.float(), expected.float(), rtol=1e-3, atol=1e-4), name


def test_sam_comes_to_sgd_as_rho_comes_to_zero():
    changes = {"model": {"name": "small_cnn", "width": 4}, "epochs": 1}
    plain = dict(train(configuration(**changes))[0].state_dict())
    distances = []
    for rho in (1e-1, 1e-3, 1e-5):
        state = train(with_sam(rho, **changes))[0].state_dict()
        distances.append(max((state[name].float() - plain[name].float()).abs().max().item() for name in plain))
    assert distances[0] > distances[1] > distances[2] > 0
    assert distances[2] < 1e-3 * distances[0]


def test_sam_where_the_gradient_is_zero_stays():
    """An unused layer has no gradient, and a batch may have none at all."""
    model = nn.Linear(3, 2)
    model.unused = nn.Linear(2, 2)
    before = copy.deepcopy(model)
    (0 * model(torch.ones(1, 3)).sum()).backward()
    with loop._uphill(model, 0.05):
        assert_same_weights(model, before)
    assert_same_weights(model, before)


@pytest.mark.parametrize("rho", [0, -0.1, None, True, math.inf, "far"])
def test_sam_needs_a_rho_above_zero(rho):
    with pytest.raises(InputError, match=r"optimizer\.rho"):
        with_sam(rho)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"name": "constant"}, [1, 1, 1, 1]),
        ({"name": "cosine"}, [(1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]),
        ({"name": "step", "step_size": 2, "gamma": 0.1}, [1, 1, 0.1, 0.1]),
        ({"name": "multistep", "milestones": [1, 3], "gamma": 0.1}, [1, 0.1, 0.1, 0.01]),
        ({"name": "exponential", "gamma": 0.5}, [1, 0.5, 0.25, 0.125]),
    ],
)
def test_schedules_are_their_formulas(schedule, rates):
    _, history = train(configuration(schedule=schedule))
    assert [row["learning_rate"] for row in history] == pytest.approx([0.1 * rate for rate in rates])


@pytest.mark.parametrize("optimizer", registry.optimizers.names())
@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "mixup"])
def test_going_on_from_any_checkpoint_gives_the_weights_of_an_unbroken_run(optimizer, augmentation):
    options = {name: OPTIONS[name] for name in OPTIONS if name in registry.optimizers[optimizer].options.model_fields}
    config = configuration(
        optimizer={"name": optimizer, "learning_rate": 0.01, "weight_decay": 1e-4, **options}, augmentation=augmentation
    )
    states = []
    unbroken, history = train(config, on_epoch=lambda row, state: states.append(copy.deepcopy(state())))
    assert all(math.isfinite(row["train_loss"]) for row in history)
    for state in states[:-1]:
        again = new_model(configuration(seed=5))  # whose own weights must not matter
        rest = training.fit(again, DIGITS, config, device=CPU, precision="float32", checkpoint=state)
        assert_same_weights(again, unbroken)
        plain = [{key: value for key, value in row.items() if key != "seconds"} for row in (*rest, *history)]
        assert repr(plain[:4]) == repr(plain[4:])


def test_dropout_repeats_itself_and_the_callers_random_state_is_left_alone():
    config = configuration(model={"name": "efficientnet_b0", "width": 8}, epochs=1)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, _ = train(config)
    assert torch.equal(torch.rand(1), expected)
    other, _ = train(config)
    assert_same_weights(one, other)


def test_seeds_change_weights_and_batches():
    one, _ = train(configuration(seed=0))
    other, _ = train(configuration(seed=1))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


@pytest.mark.parametrize("make", [configuration, functools.partial(with_sam, 0.05)])
def test_bfloat16_is_close_to_float32_but_not_it(make):
    config = make(model={"name": "small_cnn", "width": 8})
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = new_model(config)
        history = training.fit(model, DIGITS, config, device=CPU, precision=precision)
        losses[precision] = history[-1]["train_loss"]
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.2)


def test_stopping_at_a_train_accuracy_is_of_the_whole_training_set():
    model, history = train(configuration(epochs=200, stop={"train_accuracy": 0.97}, schedule={"name": "constant"}))
    accuracy = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU)).accuracy
    assert len(history) < 200
    assert history[-1]["train_accuracy"] == accuracy >= 0.97
    assert all(not row["train_accuracy"] >= 0.97 for row in history[:-1])


@pytest.mark.parametrize("stop", [{"train_accuracy": 0.97}, {"train_loss": 0.2}])
def test_training_in_bfloat16_stops_as_soon_as_the_rule_is_met_in_float32(stop):
    slow = {"name": "sgd", "learning_rate": 0.02, "weight_decay": 0.0, "momentum": 0.9, "nesterov": False}
    config = configuration(epochs=200, stop=stop, schedule={"name": "constant"}, optimizer=slow)
    model, met = new_model(config), []

    def on_epoch(row, state):
        outputs = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU))
        met.append(outputs.accuracy >= 0.97 if "train_accuracy" in stop else outputs.loss <= 0.2)

    training.fit(model, DIGITS, config, device=CPU, precision="bfloat16", on_epoch=on_epoch)
    assert met == [False] * (len(met) - 1) + [True]


def test_stopping_at_a_train_loss():
    model, history = train(configuration(epochs=200, stop={"train_loss": 0.2}, schedule={"name": "constant"}))
    loss = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU)).loss
    assert len(history) < 200
    assert loss <= 0.2


def test_a_loss_that_is_not_finite_ends_the_run():
    config = configuration(optimizer={"name": "sgd", "learning_rate": 1e12, "weight_decay": 0.0, "momentum": 0.9}, epochs=50)
    _, history = train(config)
    assert training.diverged(history)
    assert len(history) < 50


def test_evaluation_is_the_mean_over_every_image(monkeypatch):
    model = new_model(configuration(model={"name": "small_cnn", "width": 8})).train()
    monkeypatch.setattr("regioncount.measures.measured_model.evaluation_batch", lambda device, values: 37)
    outputs = evaluate(model, split_batches(DIGITS, DIGITS.train, CPU))
    assert model.training
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(DIGITS.normalize(DIGITS.train.images[i : i + 1])) for i in range(130)])
    assert outputs.loss == pytest.approx(cross_entropy(logits, DIGITS.train.labels).item(), rel=1e-5)
    assert outputs.accuracy == (logits.argmax(1) == DIGITS.train.labels).double().mean().item()


def test_workers_take_gpus_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    for name in ("MainProcess", "LokyProcess-1", "LokyProcess-2", "LokyProcess-3"):
        monkeypatch.setattr("multiprocessing.current_process", lambda name=name: SimpleNamespace(name=name))
        chosen.append(training.choose_device("auto").index)
    assert chosen == [0, 0, 1, 0]


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps", "cuda:x"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(InputError, match=f"device={device}"):
        training.choose_device(device)


@pytest.mark.parametrize("name", ["mobilenet", "shufflenetv2", "efficientnet_b0", "mobilenetv2"])
def test_networks_of_depthwise_convolutions_are_trained_as_the_same_functions(name):
    torch.manual_seed(0)
    model = models.build(name, width=8).double().eval()  # no dropout
    inputs = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found = []
    for device in (torch.device("meta"), CPU):
        model.zero_grad()
        with replaced(fast_depthwise(model, device)):
            changed = sum("forward" in vars(module) for module in model.modules())
            outputs = model(inputs)
            outputs.square().sum().backward()
        found.append([outputs.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert changed > 0
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(torch.allclose(plain, fast, rtol=1e-6) for plain, fast in zip(*found, strict=True))


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 3, 5, 7])),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_depthwise_convolutions_are_taken_as_the_same_functions(size, kernel, stride, dilation, bias):
    padding = tuple(dilation * (extent // 2) for extent in kernel)
    module = nn.Conv2d(3, 3, kernel, stride, padding, dilation, groups=3, bias=bias).double()
    inputs = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = module(inputs)
    with replaced(fast_depthwise(nn.Sequential(module), CPU)):
        assert torch.allclose(module(inputs), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [configuration, functools.partial(with_sam, 0.05)])
def test_compiled_training_is_the_same_training_and_goes_on_where_it_stopped(make):
    config = make(model={"name": "small_cnn", "width": 4}, epochs=3)  # 130 images: the last batch is of 2
    try:
        compiled = training.choose_compilation(True, CPU, 0)
    except InputError:
        pytest.skip("there is no C++ compiler")
    states = []
    model, history = train(config, compiled=compiled, on_epoch=lambda row, state: states.append(copy.deepcopy(state())))
    _, expected = train(config)
    assert [row["train_loss"] for row in history] == pytest.approx([row["train_loss"] for row in expected], rel=1e-3)
    resumed, _ = train(config, compiled=compiled, checkpoint=states[1])
    assert_same_weights(model, resumed)


def test_compilation_is_chosen_for_long_runs_on_a_cpu_with_a_compiler(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    cuda = torch.device("cuda")
    assert training.choose_compilation("auto", CPU, 1e15)
    assert not training.choose_compilation("auto", CPU, 1e12)
    assert not training.choose_compilation("auto", cuda, 1e15)
    assert training.choose_compilation(True, cuda, 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not training.choose_compilation("auto", CPU, 1e15)
    assert training.choose_compilation(True, cuda, 0)
    with pytest.raises(InputError, match="compile=true"):
        training.choose_compilation(True, CPU, 0)
