"""Registries: registration, suggestions for typos, and the options of parts."""

import subprocess
import sys
import textwrap

import pytest
from plain_configuration import PLAIN

from regioncount import registry
from regioncount.config import parse_run
from regioncount.errors import InputError
from regioncount.options import Options, validate_options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "resnet81"}}, "model=resnet81: no such choice; .*did you mean resnet18"),
        ({"dataset": {"name": "cifar"}}, "dataset=cifar: no such choice; .*did you mean cifar10"),
        ({"optimizer": {"name": "adamm", "learning_rate": 1}}, "optimizer=adamm: .*did you mean adam"),
        ({"schedule": {"name": "cosin"}}, "schedule=cosin: .*did you mean cosine"),
        ({"measures": ["acuracy"]}, "measures=acuracy: .*did you mean accuracy"),
        ({"model": {"name": "mlp", "widht": 3}}, r"model\.widht: mlp has no such option; .*did you mean width"),
        ({"regions": {"line": {"kind": "simplx"}}}, r"regions\.line\.kind=simplx: .*did you mean simplex"),
    ],
)
def test_a_typo_gets_a_suggestion(changes, message):
    with pytest.raises(InputError, match=message) as refused:
        parse_run(PLAIN | changes)
    assert "\n" not in str(refused.value)


def test_a_subspace_cannot_have_the_name_of_a_measure():
    with pytest.raises(InputError, match=r"regions\.accuracy: the measure accuracy has the same name"):
        parse_run(PLAIN | {"regions": {"accuracy": {"kind": "simplex"}}, "measures": ["accuracy"]})


def test_an_option_written_as_text_is_the_same_as_a_number():
    configs = [parse_run(PLAIN | {"model": {"name": "decision_tree", "max_depth": depth}}) for depth in (7, "7")]
    assert configs[0].model == configs[1].model == {"name": "decision_tree", "max_depth": 7}


def test_options_are_inferred_from_a_signature():
    class Part:
        def __init__(self, params, *, lr, weight_decay, momentum: float, steps=3, name="a", fast=False):
            pass

    entry = registry.Entry("optimizer", "part", Part, passed=registry.optimizers.passed)
    model = validate_options(entry, {"momentum": 0.5}, "optimizer")
    assert model.model_dump() == {"momentum": 0.5, "steps": 3, "name": "a", "fast": False}
    for wrong in ({}, {"momentum": "x"}, {"momentum": 0.5, "steps": 1.5}, {"momentum": 0.5, "lr": 1}):
        with pytest.raises(InputError, match=r"^optimizer\."):
            validate_options(entry, wrong, "optimizer")


def test_a_registry_is_a_collection_of_names():
    assert list(registry.trackers) == ["disabled", "wandb", "wandb_offline", "tensorboard", "mlflow"]


def test_every_part_declares_its_options():
    for table in (registry.models, registry.datasets, registry.optimizers, registry.schedules, registry.subspaces):
        for name in table.names():
            assert table[name].options is not None, name
            assert issubclass(registry.resolve(table[name].options), Options)


@pytest.mark.parametrize("module", ["regioncount.regions", "regioncount.measures", "regioncount.analysis"])
def test_a_library_imports_nothing_of_the_suite(module):
    refused = ["hydra", "omegaconf", "wandb", "matplotlib", "plotly", "pydantic", "jinja2", "sklearn", "torchvision"]
    refused += ["pandas", "tqdm", "filelock"] if module == "regioncount.regions" else []
    code = f"""
        import sys
        for name in {refused}:
            sys.modules[name] = None
        import {module} as library
        if "regions" in library.__name__:
            from regioncount.regions import methods
            assert methods.default_resolution(2) == 10
            assert not {{"torch", "numpy", "scipy"}} & {{*sys.modules}}  # configurations are parsed without slow imports
        assert {{*library.__all__}} <= {{*dir(library)}}
        [getattr(library, name) for name in library.__all__]
        assert not any(n.startswith(("regioncount.config", "regioncount.runs", "regioncount.data")) for n in sys.modules)
        if "regions" in library.__name__:
            import regioncount as rc, torch
            simplices = rc.sample_simplices(torch.rand(5, 3), dimension=1, number=4)
            assert rc.count_regions(lambda x: (x[:, 0] > 2).long(), simplices).mean == 1
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_record_is_parsed_without_torch():
    code = f"""
        import sys
        sys.modules["torch"] = None
        from regioncount.config import parse_run
        import regioncount.runs.measurements, regioncount.runs.identity, regioncount.columns
        parse_run({PLAIN!r}, recorded=True)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
