"""Pretrained weights: their files, their preprocessing, their classes, and runs that begin with them. No test downloads."""

import hashlib
import json
import re
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms import _presets as transforms

import regioncount as rc
from regioncount import commands, data, runs
from regioncount.config import parse_measuring
from regioncount.data.dataset import Dataset, with_output_classes
from regioncount.data.imagenet import imagenet_classes
from regioncount.data.splits import Split
from regioncount.errors import InputError
from regioncount.models import huggingface, networks, pretrained
from regioncount.models.networks import build_for
from regioncount.runs import decision_planes

IDS = ("n03445777", "n01440764", "n02979186")  # golf ball (574), tench (0), cassette player (482)
SMALL = ["regions.line.number=1", "regions.line.resolution=2"]


def make_folder(root, names, size=(48, 40)):
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for index in range(2):
                coarse = generator.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize(size).save(root / split / name / f"{index}.png")


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Do not evaluate the decision regions, which takes long for images of 224 pixels."""
    empty = np.zeros((4, 4), dtype=np.int64), np.zeros((3, 2))
    monkeypatch.setattr(decision_planes, "decision_regions", lambda *arguments: empty)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Put random weights of a small network into torch hub's folder, under a name with their hash, as torchvision's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1()
    nn.init.normal_(network.classifier[1].bias)  # so that predictions differ from class 0
    torch.save(network.state_dict(), folder / "weights")
    name = f"squeezenet1_1-{hashlib.sha256((folder / 'weights').read_bytes()).hexdigest()[:8]}.pth"
    (folder / "weights").rename(folder / name)
    weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    monkeypatch.setattr(weights.value, "url", f"https://download.pytorch.org/models/{name}")
    return network.eval(), weights, folder / name


def measure(capsys, *options):
    status = run("measure", *options)
    return status, capsys.readouterr()


def run(command, *options):
    former, sys.argv = sys.argv, [f"{command}.py", *map(str, options)]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return getattr(commands, command)()
    finally:
        sys.argv = former
        for number, handler in handlers.items():
            signal.signal(number, handler)


def torchvision_model(root, *more):
    return ["model=torchvision", "model.architecture=squeezenet1_1", "model.weights=DEFAULT", *dataset_of(root), *more]


def dataset_of(root):
    return ["dataset=imagenet", f"dataset.root={root}", "dataset.workers=0"]


def test_the_classes_of_imagenet_are_1000_sorted_wordnet_ids():
    ids = imagenet_classes()
    assert len(set(ids)) == 1000
    assert list(ids) == sorted(ids)
    assert [ids.index(name) for name in IDS] == [574, 0, 482]
    names = torchvision.models.ResNet18_Weights.DEFAULT.value.meta["categories"]
    assert [names[index] for index in (574, 0, 482)] == ["golf ball", "tench", "cassette player"]


def test_the_order_of_the_classes_is_that_of_timm():
    info = pytest.importorskip("timm.data").ImageNetInfo("imagenet-1k")
    assert tuple(info.label_names()) == imagenet_classes()


def test_one_command_measures_a_pretrained_model_on_a_subset_of_imagenet(tmp_path, hub, capsys):
    network, weights, _ = hub
    root = tmp_path / "images"
    make_folder(root, IDS)
    status, printed = measure(capsys, *torchvision_model(root), *SMALL, f"results={tmp_path / 'results'}")
    assert status == 0, printed.err
    (directory,) = (tmp_path / "results" / "runs").glob("checkpoint-*")
    loaded = runs.load(directory)
    values = next(entry["values"] for entry in loaded.measures.values() if "test_accuracy" in entry["values"])
    # The reference: torchvision's own preprocessing, and the true indices of the classes among the 1,000.
    logits, labels = [], []
    for name in IDS:
        for path in sorted((root / "val" / name).iterdir()):
            logits.append(network(weights.transforms()(Image.open(path))[None])[0].detach())
            labels.append(imagenet_classes().index(name))
    expected = nn.functional.cross_entropy(torch.stack(logits), torch.tensor(labels)).item()
    assert values["test_loss"] == pytest.approx(expected, rel=1e-4)
    accuracy = (torch.stack(logits).argmax(1) == torch.tensor(labels)).double().mean().item()
    assert values["test_accuracy"] == pytest.approx(accuracy)
    assert loaded.config["model"]["weights"] == "IMAGENET1K_V1"
    assert loaded.config["dataset"]["output_classes"] == "imagenet"
    # The record is enough to measure again, also without the weights' file.
    hub[2].unlink()
    status, printed = measure(capsys, f"run={directory}", *SMALL, "measures=[accuracy,parameter_norm]")
    assert status == 0, printed.err


def test_the_network_of_inception_is_built_without_auxiliary_heads(tmp_path, monkeypatch):
    # The weights' file is not needed: torchvision's constructor is replaced by one of the pretrained network's structure.
    reference = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=True, transform_input=True)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights, **options: reference)
    model = {"name": "torchvision", "architecture": "inception_v3", "weights": "IMAGENET1K_V1"}
    state = pretrained.pretrained_state(model)
    monkeypatch.undo()
    network = build_for(model, replace(pictures(size=75), classes=imagenet_classes()))
    network.load_state_dict(state)
    image = torch.randn(1, 3, 75, 75)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), reference.eval()(image))


def test_a_damaged_or_missing_file_of_weights_is_named(tmp_path, hub, monkeypatch, capsys):
    make_folder(tmp_path / "images", IDS)
    options = [*torchvision_model(tmp_path / "images"), f"results={tmp_path / 'results'}"]
    hub[2].write_bytes(hub[2].read_bytes()[:-100])
    status, printed = measure(capsys, *options)
    assert status == 2
    assert "is not torchvision's file: its SHA-256" in printed.err
    hub[2].unlink()

    def fail(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    status, printed = measure(capsys, *options)
    assert status == 2
    last = printed.err.strip().splitlines()[-1]
    assert all(part in last for part in (hub[2].name, str(hub[2].parent), "no network", "download https://"))
    assert not (tmp_path / "results" / "runs").exists()


REFUSED = {
    "dataset.resize=64": "dataset.resize=64: the pretrained weights of model=torchvision squeezenet1_1 need 224",
    "dataset.mean=[0,0,0]": r"dataset.mean=\[0.0, 0.0, 0.0\]: the pretrained weights",
    "dataset.squash=true": "dataset.squash=true: the pretrained weights",
    "dataset.resampling=bicubic": "dataset.resampling=bicubic: the pretrained weights .* need bilinear",
    "dataset.shorter_side=224": "dataset.shorter_side=224 needs|dataset.shorter_side=224: the pretrained",
    "model.weights=IMAGENET": "model.weights=IMAGENET: no such choice; choose one of IMAGENET1K_V1, DEFAULT",
    "checkpoint=x.pt": "checkpoint=x.pt: the model has pretrained weights, too; pass model.weights=null",
    "dataset=digits": "dataset.mean",
    "dataset.output_classes=[n03445777,n01440764,n02979186]": "the model's classes are imagenet",
}


@pytest.mark.parametrize("option", REFUSED)
def test_conflicting_options_are_refused_in_one_line(tmp_path, hub, capsys, option):
    make_folder(tmp_path / "images", IDS)
    given = [name for name in torchvision_model(tmp_path / "images") if option != "dataset=digits" or "data" not in name]
    status, printed = measure(capsys, *given, f"results={tmp_path / 'results'}", option)
    assert status == 2
    assert len(printed.err.strip().splitlines()) == 1
    assert re.search(REFUSED[option], printed.err)


def test_other_classes_are_refused(tmp_path, hub, capsys):
    make_folder(tmp_path / "images", ("cat", "n01440764"))
    status, printed = measure(capsys, *torchvision_model(tmp_path / "images"), f"results={tmp_path / 'results'}")
    assert status == 2
    assert "has no class 'cat'" in printed.err
    assert "replaces the last layer" in printed.err


def test_labels_are_mapped_to_the_outputs_by_name():
    split = Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1]))
    dataset = Dataset("x", split, split, ("b", "c"), (0.0,), (1.0,))
    mapped = with_output_classes(dataset, ["c", "a", "b"])
    assert mapped.classes == ("c", "a", "b")
    assert mapped.train.labels.tolist() == [2, 0, 0]
    assert mapped.fingerprints["train"] != dataset.fingerprints["train"]
    with pytest.raises(InputError, match="1 classes that the model does not have, such as 'b'"):
        with_output_classes(dataset, ["c", "a"])
    with pytest.raises(InputError, match="two classes have the name 'c'"):
        with_output_classes(dataset, ["c", "c", "b"])


def test_training_begins_with_the_pretrained_weights_and_a_new_last_layer(tmp_path, hub):
    network, _, _ = hub
    make_folder(tmp_path / "images", ("cat", "dog"))
    options = [*torchvision_model(tmp_path / "images"), f"results={tmp_path / 'results'}", "epochs=1", "batch_size=2"]
    options += ["optimizer.learning_rate=0.0001", "regions.line.number=1", "regions.line.resolution=2", "device=cpu"]
    first = rc.train(options)
    initial, own = first.weights(0), network.state_dict()
    for name, value in own.items():
        if name.startswith("classifier."):
            assert initial[name].shape == (2, *value.shape[1:])
        else:
            assert torch.equal(initial[name], value)
    assert first.config["model"] == {"name": "torchvision", "architecture": "squeezenet1_1", "weights": "IMAGENET1K_V1"}
    random = rc.train([option for option in options if "weights" not in option])
    assert random.identity != first.identity


def test_weights_are_part_of_the_identity_only_if_they_are_pretrained(hub, monkeypatch):
    model = {"name": "torchvision", "architecture": "squeezenet1_1", "weights": "IMAGENET1K_V1"}
    digest = pretrained.pretrained_digest(model)
    assert digest == pretrained.pretrained_digest(model)
    changed = {name: value + 1 for name, value in pretrained.pretrained_state(model).items()}
    monkeypatch.setattr(pretrained, "pretrained_state", lambda model: changed)  # as after writing the file again
    assert pretrained.pretrained_digest(model) not in (digest, None)
    assert pretrained.pretrained_digest({"name": "torchvision", "architecture": "squeezenet1_1"}) is None
    assert (
        "weights"
        not in parse_measuring(
            {"model": {"name": "torchvision", "weights": None}, "dataset": {"name": "digits"}, "checkpoint": "x"}
        ).model
    )


@pytest.mark.parametrize("size", [(60, 90), (91, 60), (64, 64), (50, 40)])
@pytest.mark.parametrize("resampling", ["bilinear", "bicubic"])
def test_resizing_the_shorter_side_is_that_of_torchvision(tmp_path, size, resampling):
    make_folder(tmp_path, ("a", "b"), size)
    mode = torchvision.transforms.InterpolationMode(resampling)
    steps = torchvision.transforms.Compose([torchvision.transforms.Resize(36, mode), torchvision.transforms.CenterCrop(31)])
    expected = np.asarray(steps(Image.open(tmp_path / "val/a/1.png"))).transpose(2, 0, 1)
    prints = set()
    for kind in ("imagenet", "image_folder"):
        options = {"root": tmp_path, "resize": 31, "shorter_side": 36, "resampling": resampling}
        dataset = data.load(kind, **options, workers=0)
        for _ in range(2):  # the second time, image_folder reads its cache
            assert np.array_equal(dataset.test.take([1])[0], expected)
            dataset = data.load(kind, **options, workers=0)
        prints |= {data.load(kind, root=tmp_path, resize=31, workers=0).fingerprints["test"], dataset.fingerprints["test"]}
    assert len(prints) == 4


def image_for(reference, *, shorter_side, resize, resampling, mean, std):
    ours = pretrained.Preprocessing(resize, shorter_side, resampling, mean, std)
    pretrained.check_preprocessing(ours, reference, "x")


def test_a_preprocessing_that_differs_is_refused():
    weights = torchvision.models.EfficientNet_B0_Weights.DEFAULT.transforms()
    right = {"shorter_side": 256, "resize": 224, "resampling": "bicubic", "mean": (0.485, 0.456, 0.406)}
    right["std"] = (0.229, 0.224, 0.225)
    image_for(weights, **right)
    for wrong in ({"resampling": "bilinear"}, {"shorter_side": 250}, {"shorter_side": None}, {"std": (0.25, 0.25, 0.25)}):
        with pytest.raises(InputError, match="not supported"):
            image_for(weights, **(right | wrong))
    padded = transforms.ImageClassification(crop_size=224, resize_size=200)
    small = {"shorter_side": 200, "resize": 224, "resampling": "bilinear", "mean": padded.mean, "std": padded.std}
    with pytest.raises(InputError, match="a crop of 224 pixels of 200"):
        image_for(padded, **small)


def pictures(classes=("a", "b"), size=32, names=None):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.tensor([0, 1, 0, 1]))
    return Dataset("pictures", split, split, classes, (0.5,) * 3, (0.5,) * 3)


def test_timm_weights_from_a_file(tmp_path, capsys):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet.r160_in1k", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    make_folder(tmp_path / "images", IDS)
    model = ["model=timm", "model.architecture=test_resnet", "model.pretrained=true"]
    options = [*model, f"model.checkpoint_path={tmp_path / 'weights.pt'}", *dataset_of(tmp_path / "images")]
    status, printed = measure(capsys, *options, *SMALL, f"results={tmp_path / 'results'}")
    assert status == 0, printed.err
    (directory,) = (tmp_path / "results" / "runs").glob("checkpoint-*")
    loaded = runs.load(directory)
    assert loaded.config["model"]["architecture"] == "test_resnet.r160_in1k"
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    losses = [
        nn.functional.cross_entropy(
            network(transform(Image.open(path))[None]), torch.tensor([imagenet_classes().index(name)])
        )
        for name in IDS
        for path in sorted((tmp_path / "images" / "val" / name).iterdir())
    ]
    values = next(entry["values"] for entry in loaded.measures.values() if "test_loss" in entry["values"])
    assert values["test_loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pt")
    status, printed = measure(capsys, *options, f"results={tmp_path / 'other'}")
    assert status == 2
    assert "not weights of timm's 'test_resnet.r160_in1k'" in printed.err


def test_a_file_without_weights_that_timm_does_not_require_is_refused(tmp_path):
    pytest.importorskip("timm")
    torch.save({"other": torch.ones(2)}, tmp_path / "weights.pt")
    options = {"name": "timm", "architecture": "dla46_c.in1k", "checkpoint_path": str(tmp_path / "weights.pt")}
    with pytest.raises(InputError, match=r"dla46_c\.in1k: the file of weights has no .*weight"):
        pretrained.pretrained_state(options)


def test_a_damaged_file_for_timm_is_named(tmp_path):
    timm = pytest.importorskip("timm")
    path = tmp_path / "weights.pt"
    torch.save(timm.create_model("test_resnet.r160_in1k", pretrained=False).state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    options = {"name": "timm", "architecture": "test_resnet.r160_in1k", "checkpoint_path": str(path)}
    damaged = r"damaged: the checksum of its record weights/data/\d+"
    for written, message in ((content, damaged), (content[:999], "truncated")):
        path.write_bytes(written)
        with pytest.raises(InputError, match=rf"model\.checkpoint_path=.*{message}"):
            pretrained.pretrained_state(options)


def test_timm_without_pretrained_weights():
    pytest.importorskip("timm")
    network = build_for({"name": "timm", "architecture": "resnet18"}, pictures())
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 2)
    network = build_for({"name": "timm", "architecture": "test_vit"}, pictures(size=48))
    assert network(torch.zeros(2, 3, 48, 48)).shape == (2, 2)
    with pytest.raises(InputError, match="no architecture 'resnet81'; close names"):
        build_for({"name": "timm", "architecture": "resnet81"}, pictures())
    with pytest.raises(InputError, match="has no weights 'x'; choose one of"):
        build_for({"name": "timm", "architecture": "resnet18.x"}, pictures())


def save_hugging_face(folder, labels, processor):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=len(labels))
    config.id2label = dict(enumerate(labels))
    network = transformers.AutoModelForImageClassification.from_config(config)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return network.eval()


STEPS = {"do_normalize": True, "do_resize": True, "do_rescale": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
PROCESSORS = {
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875, "resample": 3, "size": 64, **STEPS},
    "vit": {"image_processor_type": "ViTImageProcessor", "resample": 2, "size": {"height": 64, "width": 64}, **STEPS},
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_hugging_face_weights_from_a_folder(tmp_path, capsys, kind):
    transformers = pytest.importorskip("transformers")
    network = save_hugging_face(tmp_path / "model", ["dog", "cow", "cat"], PROCESSORS[kind])
    make_folder(tmp_path / "images", ("cat", "dog"))
    options = ["model=huggingface", f"model.path={tmp_path / 'model'}", *dataset_of(tmp_path / "images"), *SMALL]
    status, printed = measure(capsys, *options, f"results={tmp_path / 'results'}")
    assert status == 0, printed.err
    (directory,) = (tmp_path / "results" / "runs").glob("checkpoint-*")
    loaded = runs.load(directory)
    values = next(entry["values"] for entry in loaded.measures.values() if "test_loss" in entry["values"])
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "model")
    losses = [
        nn.functional.cross_entropy(
            network(**processor(images=Image.open(path), return_tensors="pt")).logits, torch.tensor([label])
        )
        for name, label in (("cat", 2), ("dog", 0))
        for path in sorted((tmp_path / "images" / "val" / name).iterdir())
    ]
    # transformers may resize with torch, whose rounding differs from Pillow's
    assert values["test_loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-2)
    assert loaded.config["dataset"]["output_classes"] == ["dog", "cow", "cat"]
    status, printed = measure(capsys, *options, "dataset.output_classes=[cat,dog,cow]")
    assert status == 2
    assert "the model's classes are ['dog', 'cow', 'cat']" in printed.err
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    status, printed = measure(capsys, f"run={directory}", *SMALL, "measures=[parameter_norm]")
    assert status == 2
    assert "config.json has changed" in printed.err


def test_a_model_of_hugging_face_in_half_precision_is_evaluated_in_float32(tmp_path):
    network = save_hugging_face(tmp_path, ["a", "b"], PROCESSORS["vit"]).half()
    network.save_pretrained(tmp_path)
    options = {"path": str(tmp_path)}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    built = huggingface.huggingface_classifier(2, 3, (64, 64), **options)
    assert {value.dtype for value in built.state_dict().values()} <= {torch.float32, torch.int64}
    built.load_state_dict(huggingface.state_dict(options))
    expected = {name: value.float() for name, value in network.state_dict().items()}
    assert all(torch.equal(value.float(), expected[name]) for name, value in built.state_dict().items())


def test_missing_and_damaged_files_of_a_folder_are_named(tmp_path):
    network = save_hugging_face(tmp_path, ["a", "b"], PROCESSORS["vit"])
    options = {"path": str(tmp_path)}
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InputError, match=r"model\.safetensors is a pointer of Git LFS"):
        huggingface.state_dict(options)
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    expected = network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in huggingface.state_dict(options).items())
    content = bytearray((tmp_path / "pytorch_model.bin").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"pytorch_model\.bin is damaged: the checksum of its record"):
        huggingface.state_dict(options)
    for file, function in (
        ("pytorch_model.bin", huggingface.state_dict),
        ("preprocessor_config.json", huggingface.preprocessing),
        ("config.json", huggingface.resolve),
    ):
        (tmp_path / file).unlink()
        name = "model.safetensors" if file == "pytorch_model.bin" else file
        with pytest.raises(InputError, match=rf"this folder has no {name}, with the .*; copy it .* save_pretrained"):
            function(options)


def test_a_model_of_hugging_face_that_is_not_on_disk_is_named(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    make_folder(tmp_path / "images", ("cat", "dog"))
    status, printed = measure(
        capsys, "model=huggingface", "model.path=someone/no-such-model", *dataset_of(tmp_path / "images")
    )
    assert status == 2
    assert "model.path=FOLDER" in printed.err
    assert "download config.json, model.safetensors, preprocessor_config.json from" in printed.err
    assert len(printed.err.strip().splitlines()) == 1


@pytest.mark.parametrize(("cached", "offline", "announced"), [(True, False, 0), (False, False, 1), (False, True, 0)])
def test_a_download_is_announced_before_it_starts(monkeypatch, capsys, cached, offline, announced):
    def from_pretrained(path, *, local_files_only=False, **options):
        if local_files_only and not cached:
            raise OSError
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == announced
        assert all(
            "fetching config.json from https://huggingface.co/a/b " in line and "HF_HUB_OFFLINE" in line for line in lines
        )
        return "a configuration"

    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", SimpleNamespace(HF_HUB_OFFLINE=offline))
    loader = SimpleNamespace(from_pretrained=from_pretrained)
    assert huggingface._load(loader, "a/b", "config.json") == "a configuration"


@pytest.mark.parametrize("cached", [True, False])
def test_a_download_of_timm_is_announced(monkeypatch, capsys, cached):
    timm = pytest.importorskip("timm")
    import huggingface_hub

    def create_model(*arguments, **options):
        assert ("fetching model.safetensors from" in capsys.readouterr().err) != cached
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a, **k: "a path" if cached else None)
    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(InputError, match="no network"):
        pretrained.pretrained_state({"name": "timm", "architecture": "test_resnet.r160_in1k"})


@pytest.mark.parametrize(("package", "name"), [("timm", "timm"), ("transformers", "huggingface")])
def test_a_missing_package_is_named(monkeypatch, package, name):
    monkeypatch.setitem(sys.modules, package, None)
    model = {"name": name} | ({"path": "x"} if name == "huggingface" else {})
    for function in (lambda: build_for(model, pictures()), lambda: networks.check(model, pictures(), None)):
        with pytest.raises(
            InputError, match=rf"^model={name} needs the package {package}: run `uv sync --extra {package}` or"
        ):
            function()
