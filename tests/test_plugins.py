"""Plugins: identities, records, and checks of the parts that they supply."""

import copy
import json
import math
import signal
import sys
import textwrap

import pytest
import torch
from plain_configuration import PLAIN
from torch.utils._pytree import tree_leaves

import regioncount as rc
from regioncount import data, plugins, registry
from regioncount.composition import compose, hydra_ready
from regioncount.config import as_mapping, parse_run
from regioncount.data.augmentation import build_augmentation
from regioncount.data.subspaces import draw_vertices
from regioncount.errors import InputError
from regioncount.models import networks
from regioncount.options import validate_options
from regioncount.runs import runner
from regioncount.runs.identity import run_identity
from regioncount.runs.validation import is_measurement
from regioncount.training.optimizers import build_optimizer
from regioncount.training.steps import build_training_step


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Return a function that writes a plugin module; its registrations are removed after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    tables = [table for table in vars(registry).values() if isinstance(table, registry.Registry)]
    for table in tables:
        table.names()
        monkeypatch.setattr(table, "_entries", dict(table._entries))

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        sys.modules.pop(name, None)
        plugins._plugins.pop(name, None)

    yield write
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)
        plugins._plugins.pop(path.stem, None)


def test_an_unused_plugin_does_not_change_the_identity(plugin):
    plugin("bystander", "import regioncount as rc\nrc.register_optimizer('mine', 'torch.optim:SGD')\n")
    plain, with_plugin = parse_run(PLAIN), parse_run(PLAIN | {"plugins": ["bystander"]})
    identities = [run_identity(as_mapping(c), "data", "float32", False) for c in (plain, with_plugin)]
    assert identities[0] == identities[1]
    assert as_mapping(plain) == as_mapping(with_plugin)


@pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "dataset", "augmentation"])
def test_the_source_of_a_plugin_that_supplies_a_part_enters_the_identity(plugin, part):
    source = f"""
        import regioncount as rc

        rc.register_{part}("mine", {{
            "model": "regioncount.models.mlp:mlp",
            "optimizer": "torch.optim:SGD",
            "schedule": "regioncount.training.optimizers:constant",
            "dataset": "regioncount.data.sources:read_digits",
            "augmentation": "regioncount.data.augmentation:crop_flip",
        }}["{part}"])
    """
    group = {"name": "mine", "learning_rate": 0.1} if part == "optimizer" else {"name": "mine"}
    if part == "model":
        group |= {"width": 4, "depth": 1}
    if part == "augmentation":
        group = "mine"
    identities = []
    for comment in ("", "# a change"):
        plugin("supplier", source + f"    {comment}\n")
        getattr(registry, f"{part}s")._entries.pop("mine", None)
        config = parse_run(PLAIN | {part: group, "plugins": ["supplier"]})
        assert config.plugin_sources[part].startswith("supplier:")
        identities.append(run_identity(as_mapping(config), "data", "float32", False))
    assert identities[0] != identities[1]


def test_a_record_imports_no_plugin_and_keeps_its_options(plugin):
    plugin("stranger", "raise RuntimeError('this was imported')\n")
    record = PLAIN | {
        "plugins": ["stranger"],
        "model": {"name": "Net", "_target_": "stranger.Net", "width": 3},
        "optimizer": {"name": "strange", "learning_rate": 0.5, "twist": 2},
        "dataset": {"name": "odd", "twist": 3},
        "regions": {"odd": {"kind": "strange", "twist": 1.5, "resolution": 7}},
        "measures": ["unheard_of"],
        "plugin_sources": {"model": "stranger:00"},
    }
    config = parse_run(record, recorded=True)
    assert config.model == record["model"]
    assert config.optimizer == record["optimizer"]
    assert config.regions.subspaces["odd"].model_dump()["twist"] == 1.5
    assert parse_run(as_mapping(config), recorded=True) == config
    assert "stranger" not in sys.modules
    with pytest.raises(InputError, match=r"plugins=\[stranger\]: .*this was imported"):
        parse_run(record)


def test_a_name_cannot_be_registered_twice(plugin):
    plugin("taker", "import regioncount as rc\nrc.register_model('resnet18', 'a:b')\n")
    with pytest.raises(InputError, match=r"model=resnet18: .*choose another"):
        plugins.load_plugins(["taker"])


def test_a_measure_cannot_end_like_a_column_beside_another(plugin):
    plugin("calibration", "import regioncount as rc\nrc.register_measure(name='calibration_error')(lambda measured: 0.0)\n")
    with pytest.raises(InputError, match=r"measures=calibration_error: .*_error"):
        parse_run(PLAIN | {"plugins": ["calibration"]})
    assert "calibration_error" not in registry.measures


def test_a_measure_of_a_plugin_returns_a_number_and_changes_only_its_copies(plugin):
    plugin(
        "various",
        """
        import torch
        import regioncount as rc

        rc.register_measure(name="tensor")(lambda measured: torch.tensor(2.5))
        rc.register_measure(name="words")(lambda measured: "many")
        rc.register_measure(name="broken")(lambda measured: {}["key"])
        rc.register_measure(name="leaving")(lambda measured: exit())
        rc.register_measure(name="weights")(lambda measured: float(measured.model.weight.data.zero_().sum()))
        rc.register_measure(name="layers")(lambda measured: [l.weight.data.mul_(2) for l in measured.layers.values()] and 1)
        rc.register_measure(name="inputs")(lambda measured: float(measured.sample[0].mul_(0.1).sum()))
        rc.register_measure(name="labels")(lambda measured: [labels.zero_() for _, labels in measured.train()] and 1)
        rc.register_measure(name="margins")(lambda measured: float(measured.train_margins.zero_().sum()))
        rc.register_measure(name="start")(lambda measured: float(measured.initial().weight.data.zero_().sum()))

        @rc.register_measure(name="hooks")
        def hooks(measured):
            measured.model.register_forward_hook(lambda module, inputs, outputs: outputs.roll(1, 1))
            measured.model.forward = lambda inputs: inputs[:, :3]
            return 1.0
        """,
    )
    plugins.load_plugins(["various"])
    data = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    model, initial = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    before = copy.deepcopy((model.state_dict(), initial.state_dict(), data))
    changing = ["weights", "layers", "inputs", "labels", "margins", "start", "hooks"]
    builtin = ["accuracy", "output_margin", "parameter_norm", "input_margin", "distance_from_initialization"]
    expected = rc.measure(model, data, builtin, test=data, initial=initial)
    values = rc.measure(model, data, ["accuracy", *changing, *builtin], test=data, initial=initial)
    assert {name: values[name] for name in changing if not math.isfinite(values[name])} == {}
    assert {name: values[name] for name in expected} == expected
    after = (model.state_dict(), initial.state_dict(), data)
    for one, other in zip(tree_leaves(before), tree_leaves(after), strict=True):
        assert torch.equal(one, other)
    values = rc.measure(model, data, ["tensor", "words", "broken", "leaving"])
    assert values["leaving_error"].startswith("SystemExit")
    assert values["tensor"] == 2.5
    assert math.isnan(values["words"])
    assert values["words_error"] == "the measure returned str, not a number"
    assert values["broken_error"] == "KeyError: 'key'"


@pytest.mark.parametrize("exception", [SystemExit, KeyError])
def test_an_exception_of_a_signal_handler_is_not_one_of_the_measure(plugin, exception):
    """A job that Slurm preempts must not store a measure as undefined."""

    def handler(number, frame):
        raise exception("preempted")

    rc.register_measure(name="preempted")(lambda measured: signal.raise_signal(signal.SIGUSR2))
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with pytest.raises(exception):
            rc.measure(torch.nn.Linear(4, 3), (torch.randn(6, 4), torch.zeros(6, dtype=torch.long)), ["preempted"])
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("name", ["../other", "a-b", "", "a..b", ".a", "1a", "a b"])
def test_a_plugin_is_named_like_a_module(name):
    with pytest.raises(InputError, match="give the name of a module"):
        plugins.load_plugins([name])


def test_a_subspace_of_a_plugin_has_the_declared_shape(plugin):
    plugin("half", "import regioncount as rc\nrc.register_subspace('half')(lambda images, options, _: images[::2])\n")
    config = parse_run(PLAIN | {"plugins": ["half"], "regions": {"odd": {"kind": "half", "number": 4}}})
    with pytest.raises(InputError, match=r"half of the plugin half is \(2, 2, 1, 8, 8\); return vertices \(4, 2, 1, 8, 8\)"):
        draw_vertices(config.regions.subspaces["odd"], data.load("digits"), seed=0)


def test_a_name_cannot_be_registered_twice_by_one_plugin(plugin):
    line = "rc.register_optimizer('mine', 'torch.optim:SGD')\n"
    plugin("twice", f"import regioncount as rc\n{line}{line}")
    with pytest.raises(InputError, match="optimizer=mine: the plugin twice has registered this name"):
        plugins.load_plugins(["twice"])


@pytest.mark.parametrize("name", ["train_accuracy", "generalization_gap", "status", "region_count_line", "seconds"])
def test_a_measure_cannot_be_named_like_a_column_of_every_table(plugin, name):
    plugin("named", f"import regioncount as rc\nrc.register_measure(name='{name}')(lambda measured: 0.0)\n")
    with pytest.raises(InputError, match=f"measures={name}: tables have a column of this name"):
        plugins.load_plugins(["named"])


def test_the_columns_of_a_measure_begin_with_its_name(plugin):
    plugin(
        "columns",
        """
        import regioncount as rc

        rc.register_measure(name="gap")(lambda measured: {"gap": 1.0, "gap_at_0": 2})
        rc.register_measure(name="clash")(lambda measured: {"clash": 1.0, "train_accuracy": 0.37})
        """,
    )
    plugins.load_plugins(["columns"])
    data = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    values = rc.measure(torch.nn.Linear(4, 3), data, ["accuracy", "gap", "clash"], test=data)
    assert (values["gap"], values["gap_at_0"]) == (1, 2)
    assert values["train_accuracy"] != 0.37  # no share of six inputs
    assert "the column train_accuracy; the names of its columns must begin with clash_" in values["clash_error"]


def test_a_schedule_of_a_plugin_may_have_options_of_the_cosine_schedule(plugin, tmp_path):
    plugin(
        "schedules",
        """
        import torch
        import regioncount as rc

        @rc.register_schedule("rising")
        def rising(optimizer, epochs, *, warmup=500):
            return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        """,
    )
    options = ["plugins=[schedules]", "schedule.name=rising", "epochs=2", f"results={tmp_path}"]
    with hydra_ready():
        assert parse_run(compose("train", options)).schedule == {"name": "rising"}
        assert parse_run(compose("train", [*options, "schedule.warmup=500"])).schedule == {"name": "rising", "warmup": 500}
        assert parse_run(compose("train", ["schedule.name=constant"])).schedule == {"name": "constant"}


def test_a_data_set_of_a_plugin_may_have_an_option_std(plugin):
    plugin(
        "gauss",
        """
        from typing import ClassVar

        import numpy as np
        import regioncount as rc
        from regioncount.data.sources import DatasetOptions

        class GaussOptions(DatasetOptions):
            later: ClassVar[frozenset[str]] = frozenset({"shift"})
            std: float = 1.0
            shift: int = 0

        @rc.register_dataset("gauss", options=GaussOptions)
        def read(options):
            images = (np.random.default_rng(0).normal(128, options.std, (60, 1, 8, 8))).astype(np.uint8)
            return (images, np.arange(60) % 2), (images, np.arange(60) % 2), ("a", "b")
        """,
    )
    plugins.load_plugins(["gauss"])
    loaded = data.load("gauss", std=20.0)
    assert loaded.std[0] * 255 == pytest.approx(20, rel=0.1)
    options = registry.datasets["gauss"]
    assert validate_options(options, {"std": 20.0}, "dataset").model_dump().keys() & {"mean", "std", "shift"} == {"std"}


BAD_DATA = {
    "three_axes": ("(images[:, 0], labels), (images, labels), names", r"images uint8 \(60, 8, 8\); give numbers \(N, C"),
    "text": ("(images.astype(str), labels), (images, labels), names", "images <U"),
    "empty": ("(images[:0], labels[:0]), (images, labels), names", "training split has images uint8"),
    "float_labels": ("(images, labels + 0.5), (images, labels), names", "labels float64"),
    "text_labels": ("(images, labels.astype(str)), (images, labels), names", "labels <U"),
    "short_labels": ("(images, labels), (images, labels[:7]), names", r"test split has labels int64 \(7,\)"),
    "negative": ("(images, labels - 1), (images, labels), names", "training split has the label -1"),
    "large": ("(images, labels), (images, labels + 1), names", "test split has the label 2; with 2 classes"),
    "one_class": ("(images, labels * 0), (images, labels * 0), names[:1]", "give a tuple of two or more"),
    "same_names": ("(images, labels), (images, labels), (1, '1')", "two classes have the name '1'"),
    "other_size": (
        "(images, labels), (images[:, :, :4], labels), names",
        r"shapes \(1, 8, 8\) for training and \(1, 4, 8\)",
    ),
    "nothing": ("None", "return three values"),
    "no_arrays": ("3, 4, names", "not a pair of images and labels"),
    "broken": ("{}['key']", "dataset=broken: the plugin arrays raised KeyError: 'key'"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_a_data_set_of_a_plugin_is_checked(plugin, name):
    result, message = BAD_DATA[name]
    plugin(
        "arrays",
        f"""
        import numpy as np
        import regioncount as rc

        @rc.register_dataset("{name}")
        def read(options):
            images, labels, names = np.zeros((60, 1, 8, 8), np.uint8), np.arange(60) % 2, ("a", "b")
            return {result}
        """,
    )
    plugins.load_plugins(["arrays"])
    with pytest.raises(InputError, match=f"dataset={name}: .*{message}" if not message.startswith("dataset") else message):
        data.load(name)


def test_a_data_set_without_a_test_split_is_divided_in_halves(plugin):
    source = (
        "lambda options: ((np.zeros((60, 1, 8, 8), np.uint8), np.arange(60, dtype=np.uint8) % 3), None, ['a', 'b', 'c'])"
    )
    plugin("whole", f"import numpy as np\nimport regioncount as rc\nrc.register_dataset('whole')({source})\n")
    plugins.load_plugins(["whole"])
    dataset = data.load("whole")
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (30, 30, ("a", "b", "c"))


OUTPUTS = {"answer": 3, "parts": 3, "one_logit": 2}


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_network_of_a_plugin_may_return_its_logits_in_another_form(plugin, output):
    plugin(
        "forms",
        """
        import torch
        from torch import nn

        class Net(nn.Linear):
            def __init__(self, num_classes, outputs=None):
                super().__init__(64, outputs or num_classes)

            def forward(self, images):
                return self.result(super().forward(images.flatten(1)))

        class answer(Net):
            def result(self, logits):
                return {"logits": logits, "loss": None}

        class parts(Net):
            def result(self, logits):
                return logits, None

        class one_logit(Net):
            def __init__(self, num_classes):
                super().__init__(num_classes, outputs=1)

            def result(self, logits):
                return logits
        """,
    )
    model = {"_target_": f"forms.{output}", "name": output}
    network = networks.build_model(model, OUTPUTS[output], 1, 8)
    images = torch.randn(5, 1, 8, 8)
    logits = network.forward(images)
    logits = {"answer": lambda: logits["logits"], "parts": lambda: logits[0], "one_logit": lambda: logits}[output]()
    expected = torch.cat([0 * logits, logits], dim=1) if output == "one_logit" else logits
    assert torch.equal(network(images), expected)
    assert list(network.state_dict()) == ["weight", "bias"]


BAD_NETWORKS = {
    "builtins.print": "identified by its .py files, but builtins is not one",
    "strange_networks.number": "int is not a torch.nn.Module",
    "strange_networks.raising": "the plugin strange_networks raised KeyError: 'key'",
    "strange_networks.no_weights": "it has no parameters to train",
    "strange_networks.broken": "does not take images of shape .*: 'nothing'",
    "strange_networks.other_output": "model=other_output: the model returned a dict without logits",
    "strange_networks.constant": "name a class or a function",
    "strange_networks.missing": "has no attribute",
}


@pytest.mark.parametrize("target", BAD_NETWORKS)
def test_a_network_of_a_plugin_is_checked(plugin, target):
    plugin(
        "strange_networks",
        """
        from torch import nn

        number = lambda num_classes: num_classes
        raising = lambda num_classes: {}["key"]
        no_weights = lambda num_classes: nn.Flatten()
        constant = 3

        class broken(nn.Linear):
            def __init__(self, num_classes):
                super().__init__(64, num_classes)

            def forward(self, images):
                return {}["nothing"]

        class other_output(nn.Linear):
            def __init__(self, num_classes):
                super().__init__(64, num_classes)

            def forward(self, images):
                return {"values": super().forward(images.flatten(1))}
        """,
    )

    def check():
        config = parse_run(PLAIN | {"model": {"_target_": target}})
        networks.check(config.model, data.load("digits"), None)

    with pytest.raises(InputError, match=BAD_NETWORKS[target]) as refused:
        check()
    assert "\n" not in str(refused.value)


def test_a_factory_with_any_keyword_arguments_takes_any_options(plugin):
    plugin(
        "flexible",
        """
        from torch import nn

        def net(num_classes, **options):
            return nn.Sequential(nn.Flatten(), nn.Linear(64, options["hidden"]), nn.Linear(options["hidden"], num_classes))
        """,
    )
    config = parse_run(PLAIN | {"model": {"_target_": "flexible.net", "hidden": 7}})
    assert networks.build_for(config.model, data.load("digits"))[1].out_features == 7


BAD_TRAINING = {
    "optimizer": ("lambda params, *, lr, weight_decay: None", "optimizer=mine: NoneType is not a torch.optim.Optimizer"),
    "schedule": ("lambda optimizer, epochs: {}['key']", "schedule=mine: the plugin trainers raised KeyError"),
    "schedule of another optimizer": (
        "lambda optimizer, epochs: ConstantLR(SGD([torch.zeros(1)], lr=1))",
        "schedule=mine: it changes another optimizer",
    ),
    "schedule that needs a loss": ("lambda optimizer, epochs: ReduceLROnPlateau(optimizer)", "schedule=mine: .*step fails"),
    "optimizer that needs a closure": ("lambda params, *, lr, weight_decay: LBFGS(params)", "optimizer=mine: .*step fails"),
    "model without gradient": ("lambda num_classes: Detached(64, num_classes)", "model=mine: a training step fails"),
    "optimizer of nothing": ("'torch.optim:Nothing'", "optimizer=mine: torch.optim:Nothing cannot be imported"),
    "augmentation": ("lambda images, generator: images / 255", r"must return images uint8 \(2, 1, 8, 8\)"),
    "subspace": ("lambda vertices, options, generator: {}['key']", "subspace=mine: the plugin trainers raised KeyError"),
}


@pytest.mark.parametrize("part", BAD_TRAINING)
def test_the_parts_of_training_are_checked_before_it(plugin, part, tmp_path):
    factory, message = BAD_TRAINING[part]
    part = part.split()[0]
    plugin(
        "trainers",
        f"""
        import torch
        from torch.optim import LBFGS, SGD
        from torch.optim.lr_scheduler import ConstantLR, ReduceLROnPlateau
        import regioncount as rc

        class Detached(torch.nn.Linear):
            def forward(self, images):
                return super().forward(images.flatten(1)).detach()

        rc.register_{part}("mine", {factory})
        """,
    )
    group = {"name": "mine", "learning_rate": 0.1} if part == "optimizer" else {"name": "mine"}
    change = {
        "augmentation": {"augmentation": "mine"},
        "subspace": {"regions": {"odd": {"kind": "mine", "number": 4}}},
    }.get(part, {part: group})

    def prepare():
        runner.prepare(parse_run(PLAIN | change | {"plugins": ["trainers"], "results": str(tmp_path / "results")}))

    with pytest.raises(InputError, match=message):
        prepare()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("mixes", [False, True])
def test_an_augmentation_of_a_plugin_is_applied(plugin, mixes):
    factories = {
        False: "rc.register_augmentation('mine')(lambda images, generator: 255 - images)",
        True: "rc.register_augmentation('mine', mixes_labels=True)("
        "lambda inputs, labels, classes, generator: (-inputs, torch.eye(classes)[labels]))",
    }
    plugin("inverse", f"import torch\nimport regioncount as rc\n{factories[mixes]}\n")
    plugins.load_plugins(["inverse"])
    digits = data.load("digits")
    images, labels = digits.train.take(range(5)), digits.train.labels[:5]
    inputs, targets = build_augmentation("mine", digits)(images, labels, torch.Generator())
    if mixes:
        assert torch.equal(inputs, -digits.normalize(images))
        assert torch.equal(targets.argmax(1), labels)
    else:
        assert torch.equal(inputs, digits.normalize(255 - images))
        assert torch.equal(targets, labels)


def test_an_optimizer_of_a_plugin_may_replace_the_training_step(plugin):
    plugin(
        "wrapped",
        """
        import torch
        import regioncount as rc
        from regioncount.training.catalogue import OptimizerOptions

        class Options(OptimizerOptions):
            factor: float = 2.0

        def scaled(batch_step, model, *, factor):
            def step(inputs, targets):
                result = batch_step(inputs, targets)
                for weight in model.parameters():
                    weight.grad.mul_(factor)
                return result

            return step

        rc.register_optimizer("mine", torch.optim.SGD, options=Options, step=scaled, step_options=("factor",))
        """,
    )
    mine = {"name": "mine", "learning_rate": 0.1, "factor": 2.0}
    gradients = []
    for options in (PLAIN["optimizer"], mine):
        config = parse_run(PLAIN | {"optimizer": options, "plugins": ["wrapped"]})
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        optimizer = build_optimizer(model, config.optimizer)
        cpu = torch.device("cpu")
        step = build_training_step(model, optimizer, config, device=cpu, precision="float32", compiled=False)
        with step.context():
            step(torch.ones(2, 4), torch.tensor([0, 1]))
        gradients.append(model.weight.grad.clone())
    assert torch.equal(2 * gradients[0], gradients[1])


def test_a_schedule_is_tried_with_the_epochs_of_the_run(plugin):
    source = "lambda optimizer, epochs: LambdaLR(optimizer, lambda epoch: 1 - 0.9 * epoch / (epochs - 1))"
    plugin(
        "linear",
        f"import regioncount as rc\nfrom torch.optim.lr_scheduler import LambdaLR\nrc.register_schedule('mine')({source})\n",
    )
    runner.prepare(parse_run(PLAIN | {"schedule": {"name": "mine"}, "plugins": ["linear"], "epochs": 3}))


def test_a_network_may_read_values_and_have_positional_options(plugin):
    plugin(
        "deep",
        """
        import torch
        from torch import nn

        class Net(nn.Linear):
            def __init__(self, num_classes, width):
                rates = [rate.item() for rate in torch.linspace(0, 0.1, width)]
                super().__init__(64, num_classes)
                self.rates = rates

            def forward(self, images):
                return super().forward(images.flatten(1))
        """,
    )
    config = parse_run(PLAIN | {"model": {"_target_": "deep.Net", "width": 3}})
    runner.prepare(config)
    assert len(networks.build_for(config.model, data.load("digits")).rates) == 3
    with pytest.raises(InputError, match=r"model\.width is missing"):
        parse_run(PLAIN | {"model": {"_target_": "deep.Net"}})
    with pytest.raises(InputError, match=r"model\.name=other: the name is that of model\._target_"):
        parse_run(PLAIN | {"model": {"_target_": "deep.Net", "width": 3, "name": "other"}})


@pytest.mark.parametrize(
    ("kind", "name"),
    [("model", "my net"), ("model", "a/b"), ("model", "../up"), ("dataset", "d e"), ("subspace", "a-b"), ("measure", "a-b")],
)
def test_names_fit_into_paths_and_columns(plugin, kind, name):
    argument = f"name={name!r}" if kind == "measure" else repr(name)
    plugin("named", f"import regioncount as rc\nrc.register_{kind}({argument})(lambda *_: None)\n")
    with pytest.raises(InputError, match="a name consists of letters"):
        plugins.load_plugins(["named"])


def test_a_module_that_a_plugin_imports_is_the_plugin_of_its_parts(plugin):
    plugin("helper", "import regioncount as rc\nrc.register_optimizer('mine', 'torch.optim:SGD')\n")
    plugin("importer", "import helper\n")
    config = parse_run(PLAIN | {"plugins": ["importer"], "optimizer": {"name": "mine", "learning_rate": 0.1}})
    assert config.plugin_sources["optimizer"].startswith("helper:")
    assert plugins.is_loaded("helper")


@pytest.mark.parametrize("item", ["True", "10**400", "float('nan')", "{'odd': 1.0, 'odd_standard_error': 'unknown'}"])
def test_every_stored_value_of_a_measure_can_be_read_back(plugin, item):
    plugin("odd_values", f"import regioncount as rc\nrc.register_measure(name='odd')(lambda measured: {item})\n")
    plugins.load_plugins(["odd_values"])
    values = rc.measure(torch.nn.Linear(4, 3), (torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])), ["odd"])
    stored = {key: None if value != value else value for key, value in values.items()}
    assert is_measurement({"settings": {}, "values": json.loads(json.dumps(stored)), "how": {}, "arrays": {}, "epoch": 1})


def test_all_measures_and_a_subspace_cannot_share_a_name():
    with pytest.raises(InputError, match=r"regions\.parameter_norm: the measure parameter_norm has the same name"):
        parse_run(PLAIN | {"regions": {"parameter_norm": {"kind": "simplex"}}, "measures": ["all"]})


def test_two_measures_cannot_share_a_column(plugin):
    plugin(
        "pairs",
        "import regioncount as rc\nfor name in ('odd', 'odd_max'):\n    rc.register_measure(name=name)(lambda _: 1.0)\n",
    )
    with pytest.raises(InputError, match="measures=odd_max: the columns of odd may have this name"):
        parse_run(PLAIN | {"plugins": ["pairs"], "measures": ["odd", "odd_max"]})
