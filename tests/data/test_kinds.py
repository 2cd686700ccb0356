"""Every kind of data that users bring: a run of train.py and of measure.py, or the line that refuses it."""

import sys
import unicodedata
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from plain_configuration import PLAIN
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler

import regioncount as rc
from regioncount import data, plugins
from regioncount.arguments import parse_arguments
from regioncount.config import as_mapping, parse_measuring, parse_run
from regioncount.config.datasets import validate_dataset
from regioncount.data import conversion, image_listing, load
from regioncount.data.augmentation import crop_flip, random_resized_crop
from regioncount.data.image_folder import decode
from regioncount.data.normalization import constants_of
from regioncount.errors import InputError
from regioncount.runs import measuring, runner
from regioncount.runs.loading import load_dataset
from regioncount.runs.measurements import measured_values

IRIS = load_iris()
LINE = {"line": {"number": 5, "resolution": 20}}


def features(seed=0):
    order = np.random.default_rng(seed).permutation(150)
    return IRIS.data[order], IRIS.target[order]


def split(x, y, names=("x_train", "y_train", "x_test", "y_test")):
    return dict(zip(names, (x[:100], y[:100], x[100:], y[100:]), strict=True))


def images(number=60, shape=(8, 8), seed=0):
    """Return images whose class is their brightness."""
    generator = np.random.default_rng(seed)
    labels = np.arange(number) % 2
    pixels = generator.integers(0, 100, (number, *shape)) + 150 * labels.reshape(-1, *[1] * len(shape))
    return pixels.astype(np.uint8), labels


def thirds(x, y, names=("x_train", "y_train", "x_test", "y_test")):
    return dict(zip(names, (x[:40], y[:40], x[40:], y[40:]), strict=True))


MODULE = """
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_iris

class Pictures(torch.utils.data.Dataset):
    classes = ["dark", "light"]
    def __init__(self, root=None, train=True, level=150, transform=None):
        self.number, self.level = (40, level) if train else (20, level)
    def __len__(self):
        return self.number
    def __getitem__(self, index):
        pixels = np.random.default_rng(index).integers(0, 100, (8, 8)) + self.level * (index % 2)
        return Image.fromarray(pixels.astype(np.uint8)), index % 2

class Random(Pictures):
    def __getitem__(self, index):
        return torch.rand(1, 8, 8), index % 2

class RandomAtTheEnd(Pictures):
    def __len__(self):
        return 200

    def __getitem__(self, index):
        return torch.rand(1, 8, 8) if index >= 190 else torch.ones(1, 8, 8), index % 2

class RandomLabels(Pictures):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], torch.rand(()).item() < 0.5

class OneHot(Pictures):
    def __getitem__(self, index):
        return super().__getitem__(index)[0], torch.eye(2)[index % 2]

class SomeGrey(Pictures):
    modes = "RGB", "L"
    def __getitem__(self, index):
        picture, label = super().__getitem__(index)
        return picture.convert(self.modes[index % 3 == 1]), label

class SomeColour(SomeGrey):
    modes = "L", "RGB"

class Dictionaries(Pictures):
    def __getitem__(self, index):
        return {"image": 1}

class Sizes(Pictures):
    def __getitem__(self, index):
        return np.zeros((8, 8 + (index == 7))), index % 2

class Endless(torch.utils.data.IterableDataset):
    def __init__(self, train):
        pass
    def __iter__(self):
        yield 1, 1

def flowers(split, seed):
    iris = load_iris()
    chosen = (np.random.default_rng(seed).permutation(150) < 100) == (split == "train")
    return torch.utils.data.TensorDataset(torch.tensor(iris.data[chosen]), torch.tensor(iris.target[chosen]))

def everything():
    iris = load_iris()
    return iris.data, iris.target_names[iris.target]

class Net(torch.nn.Sequential):
    def __init__(self, num_classes, in_channels, hidden):
        super().__init__(torch.nn.Linear(in_channels, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, num_classes))

nothing = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "brought_data.py").write_text(MODULE)
    yield "brought_data"
    sys.modules.pop("brought_data", None)
    plugins._plugins.pop("brought_data", None)


def npz(**arrays):
    return lambda root: np.savez(root / "file.npz", **arrays) or {"name": "arrays", "path": str(root / "file.npz")}


def pt(content):
    return lambda root: torch.save(content, root / "file.pt") or {"name": "arrays", "path": str(root / "file.pt")}


def damaged(root, name):
    """Invert a byte of the first array of a file."""
    content = bytearray((root / name).read_bytes())
    content[content.index(np.float32(12345).tobytes())] ^= 255
    (root / name).write_bytes(content)
    return {"name": "arrays", "path": str(root / name)}


def damaged_pt(root):
    pt({"x": torch.full((4, 9), 12345.0), "y": torch.arange(4)})(root)
    return damaged(root, "file.pt")


def damaged_npz(root):
    npz(x=np.full((4, 9), 12345, np.float32), y=np.arange(4))(root)
    return damaged(root, "file.npz")


def web_page(root):
    (root / "file.pt").write_text("<html></html>")
    return {"name": "arrays", "path": str(root / "file.pt")}


def target(attribute, **options):
    return lambda root: {"_target_": f"brought_data.{attribute}", **options}


def folder(layout, draw=lambda path: Image.fromarray(np.full((8, 8), 200 if "dog" in path else 20, np.uint8))):
    def write(root):
        for path in layout:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            draw(path).save(root / path)
        return {"name": "image_folder", "root": str(root)}

    return write


def two_classes(*patterns, number=6):
    return [pattern.format(name, i) for pattern in patterns for name in ("cat", "dog") for i in range(number)]


TORCH = {name: torch.tensor(array) for name, array in split(*features()).items()}
MLP, CNN = {"name": "mlp", "width": 16}, {"name": "small_cnn", "width": 4}

# The data, the model, and the numbers of classes, training and test examples.
WORKS = {
    "npz, features": (npz(**split(*features())), MLP, (3, 100, 50)),
    "npz, features of the other byte order": (npz(**split(features()[0].astype(">f4"), features()[1])), MLP, (3, 100, 50)),
    "npz, features, text labels": (npz(**split(features()[0], IRIS.target_names[features()[1]])), MLP, (3, 100, 50)),
    "npz, features, own network": (
        npz(**split(*features())),
        {"_target_": "brought_data.Net", "hidden": 5},
        (3, 100, 50),
    ),
    "npz, features, trees": (npz(**split(*features())), {"name": "random_forest"}, (3, 100, 50)),
    "npz, features, no test set": (npz(x=features()[0], y=features()[1]), MLP, (3, 75, 75)),
    "npz, grey images": (npz(**thirds(*images())), CNN, (2, 40, 20)),
    "npz, images NHWC": (npz(**thirds(*images(shape=(8, 8, 3)))), CNN, (2, 40, 20)),
    "npz, images NCHW": (npz(**thirds(*images(shape=(3, 8, 8)))), CNN, (2, 40, 20)),
    "npz, float images": (npz(**thirds(images()[0] / 255, images()[1])), CNN, (2, 40, 20)),
    "npz, MedMNIST's names": (
        npz(
            val_images=images()[0],
            val_labels=images()[1],
            **thirds(images()[0], images()[1][:, None], ("train_images", "train_labels", "test_images", "test_labels")),
        ),
        CNN,
        (2, 40, 20),
    ),
    "pt, features": (pt(TORCH), MLP, (3, 100, 50)),
    "pt, bfloat16 features": (pt({**TORCH, "x_train": TORCH["x_train"].bfloat16()}), MLP, (3, 100, 50)),
    "class of pictures": (target("Pictures", level=120), CNN, (2, 40, 20)),
    "function with split and seed": (target("flowers", seed=2), MLP, (3, 100, 50)),
    "function without split": (target("everything"), MLP, (3, 75, 75)),
    "folder": (folder(two_classes("train/{}/{}.png", "test/{}/{}.png")), CNN, (2, 12, 12)),
    "folder of ILSVRC": (
        folder([*two_classes("train/{}/{}.png", "val/{}/{}.png"), "test/0.png", "test/1.png"]),
        CNN,
        (2, 12, 12),
    ),
}


@pytest.mark.parametrize("kind", WORKS)
def test_a_kind_of_data_is_trained_on_and_measured(kind, module, tmp_path):
    write, model, (classes, train_size, test_size) = WORKS[kind]
    options = {"dataset": write(tmp_path), "model": model, "device": "cpu", "precision": "float32", "compile": False}
    plain = PLAIN | {
        "batch_size": 8,
        "epochs": 8,
        "measures": ["accuracy"],
        "regions": LINE,
        "results": str(tmp_path / "results"),
        **options,
    }
    prepared = runner.prepare(parse_run(plain))
    dataset = prepared.dataset
    assert (dataset.num_classes, len(dataset.train), len(dataset.test)) == (classes, train_size, test_size)
    run = runner.run_or_resume(prepared)
    values = measured_values(run, prepared.config, dataset)
    assert values["region_count_line"] >= 1
    # All of these classes are easily told apart.
    assert max(values["train_accuracy"], values["test_accuracy"]) > 1.2 / classes
    # The recorded configuration finds the same data.
    recorded = parse_run(run.config, recorded=True)
    assert as_mapping(recorded) == run.config
    config = parse_measuring({"run": str(run.directory), "regions": {"line": {"number": 3}}, "device": "cpu"})
    again, found = measuring.open_for_measuring(config)
    assert found.fingerprints == dataset.fingerprints
    measuring.measure_epochs(again, config, found, torch.device("cpu"))
    assert measured_values(again, config, found)["region_count_line"] >= 1


BROKEN = np.where(np.arange(600).reshape(150, 4) == 70, np.nan, features()[0])
REFUSED = {
    "features for a network of images": (npz(**split(*features())), {"model": CNN}, "model=small_cnn: it takes images.*mlp"),
    "features for a transformer": (
        npz(**split(*features())),
        {"model": {"name": "vision_transformer"}},
        "it takes images, but the inputs are 4 features",
    ),
    "crops of features": (
        npz(**split(*features())),
        {"augmentation": "crop_flip"},
        "augmentation=crop_flip: .*none or mixup",
    ),
    "resized features": (lambda r: npz(**split(*features()))(r) | {"resize": 4}, {}, "dataset.resize=4: .*features"),
    "other names": (npz(a=np.zeros((3, 2)), y_train=np.zeros(3)), {}, r"holds a \(3, 2\), y_train \(3,\); name them x_tr"),
    "no labels of the test set": (
        npz(x_train=features()[0], y_train=features()[1], x_test=np.ones((2, 4))),
        {},
        "name them",
    ),
    "two names of one thing": (
        npz(x=features()[0], y=features()[1], labels=features()[1]),
        {},
        "y and labels have the same meaning",
    ),
    "not a number": (npz(x=BROKEN, y=features()[1]), {}, "example 17 has a value that is NaN"),
    "beyond float32": (npz(x=features()[0] * 1e300, y=features()[1]), {}, "infinite or beyond float32"),
    "merged by float32": (npz(x=features()[0] + 1e9, y=features()[1]), {}, "float32 cannot tell apart.*subtract"),
    "complex": (npz(x=features()[0] * 1j, y=features()[1]), {}, "complex128.*give numbers"),
    "numbers as labels": (npz(x=features()[0], y=features()[0][:, 0]), {}, "which is no class"),
    "one-hot labels": (npz(x=features()[0], y=np.eye(3)[features()[1]]), {}, r"y.argmax\(1\)"),
    "one class": (npz(x=features()[0], y=np.zeros(150)), {}, "has one class, 0"),
    "a class of the test set alone": (npz(**split(IRIS.data, IRIS.target)), {}, "y_test has the class 2, which .* has not"),
    "fewer labels": (npz(x=features()[0], y=features()[1][:9]), {}, r"x is \(150, 4\), but there are 9 labels"),
    "unclear channels": (npz(x=np.zeros((9, 5, 6, 7), np.uint8), y=np.arange(9)), {}, r"may be \(N, C, H, W\) or"),
    "five dimensions": (npz(x=np.zeros((4, 2, 2, 2, 2)), y=np.arange(4)), {}, "give numbers"),
    "objects": (npz(x=np.array([{}] * 4), y=np.arange(4)), {}, "x holds Python objects"),
    "pickled data": (pt({"x": features()[0], "y": IRIS}), {}, "objects other than tensors"),
    "a damaged file of torch": (damaged_pt, {}, "file.pt is damaged: the checksum of its record file/data/0 differs"),
    "a damaged file of NumPy": (damaged_npz, {}, "file.npz cannot be read as an .npz file .*CRC"),
    "a web page": (web_page, {}, r"file\.pt is a web page"),
    "a list of tensors": (pt([torch.zeros(3)]), {}, "holds list; save a dictionary of tensors"),
    "no file": (lambda root: {"name": "arrays", "path": str(root / "a.npz")}, {}, "a.npz is not a file"),
    "no path": (lambda root: {"name": "arrays"}, {}, "needs dataset.path=FILE"),
    "a root": (lambda root: {"name": "arrays", "root": "x"}, {}, "pass dataset.path=FILE instead"),
    "a negative label": (npz(x=features()[0], y=features()[1] - 1), {}, "y has the label -1, which is no class; remove"),
    "an ignored label": (
        npz(x=features()[0], y=np.where(np.arange(150) == 3, -100.0, features()[1])),
        {},
        "y has the label -100, which is no class",
    ),
    "random transforms": (target("Random"), {}, "example 0 differs when it is read again"),
    "random transforms of the last examples": (target("RandomAtTheEnd"), {}, "example 190 differs when it is read again"),
    "random labels": (target("RandomLabels"), {}, "differs when it is read again; its label is random"),
    "one-hot tensors": (target("OneHot"), {}, r"\(40, 2\) is not one label for each example; save the classes"),
    "dictionaries": (target("Dictionaries"), {}, "an example is dict; return a pair"),
    "different sizes": (target("Sizes"), {}, r"example 7 float64 \(8, 9\)"),
    "without an index": (target("Endless"), {}, "Endless is no torch Dataset with a length and an index"),
    "a number": (target("nothing"), {}, "name a class or a function"),
    "an unknown name": (target("missing"), {}, "has no attribute 'missing'"),
    "an unknown option": (target("Pictures", levels=3), {}, "dataset.levels: Pictures has no such option.*mean level"),
    "another name": (target("Pictures", name="other"), {}, "the name is that of dataset._target_; omit it"),
    "no module": (lambda root: {"_target_": "Pictures"}, {}, "pass a module and a class"),
    "floats outside of [0, 1]": (
        folder(
            two_classes("train/{}/{}.tif", "test/{}/{}.tif"), lambda _: Image.fromarray(np.full((8, 8), 1.5, np.float32))
        ),
        {},
        r"train/cat/0.tif cannot be read.*not all from 0 to 1",
    ),
    "integers of 32 bits": (
        folder(two_classes("train/{}/{}.tif", "test/{}/{}.tif"), lambda _: Image.fromarray(np.full((8, 8), 9, np.int32))),
        {},
        "signed or 32-bit integers",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_of_data_is_refused_in_one_line(kind, module, tmp_path):
    write, changes, message = REFUSED[kind]
    with pytest.raises(InputError, match=message) as caught:
        runner.prepare(parse_run(PLAIN | {"dataset": write(tmp_path), "results": str(tmp_path / "results"), **changes}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results/runs").exists()


# Inputs


def test_features_are_standardized_by_the_training_set(tmp_path):
    x, y = features()
    x[:, 3] = 7  # centred, but not scaled
    dataset = load("arrays", **{k: v for k, v in npz(**split(x, y))(tmp_path).items() if k != "name"})
    scaler = StandardScaler().fit(x[:100])
    for part, rows in ((dataset.train, x[:100]), (dataset.test, x[100:])):
        ours = dataset.normalize(part.take(range(len(part))))
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(ours, scaler.transform(rows), atol=1e-4)
    plain = load("arrays", path=tmp_path / "file.npz", mean=[0.0], std=[1.0])
    np.testing.assert_allclose(plain.normalize(plain.train.images), x[:100], rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(-100, 100), st.floats(1e-3, 1e6))
def test_constants_are_those_of_numpy_rounded_to_six_digits_of_the_deviation(seed, shift, scale):
    values = ((np.random.default_rng(seed).normal(size=(50, 3, 2, 2)) + shift) * scale).astype(np.float32)
    mean, std = constants_of(torch.from_numpy(values))
    exact = values.astype(np.float64)
    np.testing.assert_allclose(std, exact.std(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 2, 3)), atol=1e-5 * exact.std())


def test_a_file_that_is_written_again_is_read_again(tmp_path):
    arrays = split(*features())
    options = validate_dataset(npz(**arrays)(tmp_path), recorded=False)
    first = load_dataset(options)
    assert load_dataset(options) is first
    changed = {key: np.concatenate([value, value]) for key, value in arrays.items()}
    npz(**changed)(tmp_path)
    assert len(load_dataset(options).train) == 2 * len(first.train)


def test_fingerprints_are_those_of_the_content(tmp_path):
    arrays = split(*features())
    first = load("arrays", path=npz(**arrays)(tmp_path)["path"]).fingerprints
    assert load("arrays", path=pt({k: torch.tensor(v) for k, v in arrays.items()})(tmp_path)["path"]).fingerprints == first
    (tmp_path / "file.npz").rename(tmp_path / "other.npz")
    assert load("arrays", path=tmp_path / "other.npz").fingerprints == first
    for name, index in (("x_train", (99, 3)), ("y_train", 5)):
        changed = {key: value.copy() for key, value in arrays.items()}
        changed[name][index] = changed[name][index] + 1 if name == "x_train" else (changed[name][index] + 1) % 3
        other = load("arrays", path=npz(**changed)(tmp_path)["path"]).fingerprints
        assert other["train"] != first["train"]
    pixels, labels = images()
    uint8 = load("arrays", path=npz(x=pixels, y=labels)(tmp_path)["path"]).fingerprints["train"]
    floats = load("arrays", path=npz(x=pixels.astype(np.float32), y=labels)(tmp_path)["path"]).fingerprints["train"]
    assert uint8 != floats


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 8, 8), (1, 8, 8)),
        ((2, 3, 8, 9), (3, 8, 9)),
        ((2, 8, 9, 3), (3, 8, 9)),
        ((2, 13, 8, 8), (13, 8, 8)),
        ((2, 8, 8, 13), (13, 8, 8)),
        ((2, 3, 4, 4), (3, 4, 4)),
        ((2, 4, 4, 3), (3, 4, 4)),
        ((2, 3, 4, 2), None),
        ((2, 64, 4, 4), None),
        ((2, 4, 4, 64), None),
        ((2, 9, 1, 1), None),
        ((2, 9, 4, 1), (1, 9, 4)),
        ((2, 5, 5, 5), None),
        ((2, 1, 1, 1), None),
    ],
)
def test_the_dimension_of_channels_is_clear_or_refused(shape, expected):
    values = np.arange(np.prod(shape)).reshape(shape)
    if expected is None:
        with pytest.raises(InputError, match="may be"):
            conversion.channels_first(values, "x")
        return
    result = conversion.channels_first(values, "x")
    assert result.shape[1:] == expected
    moved = values.reshape(2, *expected) if shape[1:] == expected or len(shape) == 3 else np.moveaxis(values, 3, 1)
    assert np.array_equal(result, moved)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 2, 9], ("2", "9", "10")),
        ([1, -1, 1], ("-1", "1")),
        ([2.0, 0.0, 2.0], ("0", "2")),
        ([True, False], ("0", "1")),
        (["b", "a", "B"], ("B", "a", "b")),
        ([b"x", b"\xc3\xa4"], ("x", "ä")),
        (["10", "9"], ("10", "9")),
        ([unicodedata.normalize("NFD", "é"), "é", "z"], ("z", "é")),
    ],
)
def test_classes_are_the_sorted_labels(labels, names):
    values, test, classes = conversion.as_labels(np.array(labels), np.array(labels[::-1]), ("train", "test"))
    assert classes == names
    for given_labels, ours in ((labels, values), (labels[::-1], test)):
        for label, index in zip(given_labels, ours, strict=True):
            text = label.decode() if isinstance(label, bytes) else label
            text = str(int(text)) if isinstance(text, (int, float)) else unicodedata.normalize("NFC", text)
            assert classes[index] == text


def test_float_images_are_augmented_as_uint8_images_are():
    pixels = torch.randint(256, (20, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for augment in (crop_flip, random_resized_crop):
        ours, rounded = (augment(p, torch.Generator().manual_seed(1)) for p in (pixels.float(), pixels))
        assert ours.dtype == torch.float32
        assert torch.equal(ours.round().to(torch.uint8), rounded)


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_arrays_of_both_byte_orders_are_counted_and_measured(byte_order):
    generator = np.random.default_rng(0)
    vertices, labels = generator.normal(size=(20, 2, 4)), np.arange(20) % 3
    network = torch.nn.Linear(4, 3)
    expected = rc.count_regions(network, torch.tensor(vertices).float(), resolution=30).counts
    assert np.array_equal(rc.count_regions(network, vertices.astype(f"{byte_order}f4"), resolution=30).counts, expected)
    pair = vertices[:, 0].astype(f"{byte_order}f4"), labels.astype(f"{byte_order}i8")
    native = rc.measure(network, (torch.tensor(vertices[:, 0]).float(), torch.tensor(labels)), ["output_margin"])
    assert rc.measure(network, pair, ["output_margin"]) == native
    assert rc.count_components(np.array([[0, 0, 256, 1]], f"{byte_order}i4")).tolist() == [3]


# Classes and functions of one's own


def test_a_record_never_imports_the_class_of_its_data(module, tmp_path):
    config = parse_run(PLAIN | {"dataset": target("Pictures")(tmp_path), "plugins": [module]})
    assert config.plugin_sources["dataset"].startswith(f"{module}:")
    record = as_mapping(config) | {"plugins": [module]}
    assert record["dataset"]["_target_"] == "brought_data.Pictures"
    sys.modules.pop(module)
    plugins._plugins.pop(module)
    assert as_mapping(parse_run(record, recorded=True))["dataset"] == record["dataset"]
    assert module not in sys.modules
    with pytest.raises(InputError, match=r"pass plugins=\[brought_data\]"):
        measuring.require_plugins(record)
    with pytest.raises(InputError, match="the record has been edited"):
        measuring.require_plugins({key: value for key, value in record.items() if key != "plugin_sources"})
    with pytest.raises(InputError, match=r"dataset._target_=brought_data.Pictures: pass plugins=\[brought_data\]"):
        measuring.parse_dataset(record["dataset"])
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["dataset._target_=a.B", "dataset.fold=2"], ["dataset=custom", "dataset._target_=a.B", "++dataset.fold=2"]),
        (
            ["model._target_=a.N", "dataset._target_=a.B"],
            ["dataset=custom", "model=custom", "model._target_=a.N", "dataset._target_=a.B"],
        ),
    ],
)
def test_a_target_chooses_custom_data(arguments, expected):
    assert parse_arguments("train", arguments)[1] == expected


def test_class_names_are_those_of_the_data_set(module, tmp_path):
    dataset = data.dataset.load_checked(parse_run(PLAIN | {"dataset": target("Pictures")(tmp_path)}).dataset)
    assert (dataset.name, dataset.classes) == ("Pictures", ("dark", "light"))
    assert dataset.train.images[3].shape == (1, 8, 8)
    pixels = np.random.default_rng(3).integers(0, 100, (8, 8)) + 150
    assert np.array_equal(dataset.train.images[3, 0].numpy(), pixels)
    flowers = parse_run(PLAIN | {"dataset": target("everything")(tmp_path)}).dataset
    assert data.dataset.load_checked(flowers).classes == ("setosa", "versicolor", "virginica")


@pytest.mark.parametrize("name", ["SomeGrey", "SomeColour"])
def test_grey_pictures_among_coloured_ones_have_three_channels(name, module, tmp_path):
    grey, mixed = (
        data.dataset.load_checked(parse_run(PLAIN | {"dataset": target(kind)(tmp_path)}).dataset)
        for kind in ("Pictures", name)
    )
    assert torch.equal(mixed.train.images, grey.train.images.expand(-1, 3, -1, -1))


# Folders of images


def test_tiny_imagenet_has_its_classes_in_a_table(tmp_path):
    layout = two_classes("train/{}/images/{}.png", number=2) + [f"val/images/val_{i}.png" for i in range(4)]
    folder([*layout, "test/images/test_0.png"])(tmp_path)
    (tmp_path / "train/cat/cat_boxes.txt").write_text("0.png\t0\t0\t8\t8\n")
    classes = ("dog", "cat", "cat", "dog")
    table = "".join(f"val_{i}.png\t{name}\t0\t32\t44\t62\n" for i, name in enumerate(classes))
    (tmp_path / "val/val_annotations.txt").write_text(table)
    with pytest.warns(UserWarning, match=r"left out 1 files .*: 1 \.txt \(such as train/cat/cat_boxes\.txt\)"):
        train, test, names = image_listing.list_folder(tmp_path)
    assert names == ("cat", "dog")
    assert [(Path(path).name, label) for path, label in zip(test.paths, test.labels, strict=True)] == [
        ("val_1.png", 0),
        ("val_2.png", 0),
        ("val_0.png", 1),
        ("val_3.png", 1),
    ]
    assert train.labels == [0, 0, 1, 1]
    for damaged, message in (
        (table.replace("val_3.png\tdog\t0\t32\t44\t62\n", ""), "val_3.png is in .*images but not in"),
        (table.replace("cat", "dog"), "class 'cat' is in .*train but not in"),
        (table.replace("\t", " "), "line 1 has no class"),
        (table + table, "lists an image twice"),
    ):
        (tmp_path / "val/val_annotations.txt").write_text(damaged)
        with pytest.raises(InputError, match=message), warnings.catch_warnings(action="ignore"):
            image_listing.list_folder(tmp_path)


def test_names_of_classes_are_compared_after_normalization(tmp_path):
    composed, decomposed = "é", unicodedata.normalize("NFD", "é")
    layout = [f"train/{composed}/0.png", "train/z/0.png", f"test/{decomposed}/0.png", "test/z/0.png"]
    folder(layout)(tmp_path)
    train, test, classes = image_listing.list_folder(tmp_path)
    assert (classes, train.labels, test.labels) == (("z", composed), [0, 1], [0, 1])
    folder([f"train/{decomposed}/0.png"])(tmp_path)
    if len(list((tmp_path / "train").iterdir())) == 3:  # some file systems normalize names themselves
        with pytest.raises(InputError, match="in different Unicode forms; merge them"):
            image_listing.list_folder(tmp_path)


def test_files_that_are_no_images_are_counted_in_one_warning(tmp_path):
    folder(two_classes("train/{}/{}.png", "test/{}/{}.png", number=2))(tmp_path)
    for path in ("train/cat/a.txt", "train/dog/b.txt", "test/dog/c.HEIC", "test/cat/README"):
        (tmp_path / path).write_text("content")
    (tmp_path / "train/cat/broken.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(UserWarning, match="left out") as caught:
        dataset = load("image_folder", root=tmp_path)
    (message,) = [str(warning.message) for warning in caught]
    assert "left out 5 files" in message
    assert all(part in message for part in ("2 .txt", "1 .heic", "1 broken link", "1 without a known ending"))
    assert (len(dataset.train), len(dataset.test)) == (4, 4)
    (tmp_path / "train/cat/damaged.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"train/cat/damaged\.png cannot be read"), warnings.catch_warnings(action="ignore"):
        load("image_folder", root=tmp_path)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_levels_of_16_bits_are_scaled(tmp_path, suffix):
    levels = np.array([[0, 1, 128, 129], [256, 32767, 65534, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / f"a.{suffix}")
    expected = np.rint(levels / 65535 * 255)
    assert np.array_equal(decode(str(tmp_path / f"a.{suffix}")), np.broadcast_to(expected, (3, 2, 4)))


def test_twelve_bits_in_16_are_named(tmp_path):
    for name, largest in (("twelve", 4095), ("sixteen", 4096), ("black", 0)):
        Image.fromarray(np.array([[0, largest]], np.uint16)).save(tmp_path / f"{name}.png")
        with pytest.warns(UserWarning, match="no value above 4095") if name == "twelve" else nullcontext():
            decode(str(tmp_path / f"{name}.png"))


@pytest.mark.parametrize("uint8_part", ["train", "test"])
def test_images_of_which_only_one_part_would_be_scaled_are_refused(tmp_path, uint8_part):
    pixels, y = images()
    parts = {f"x_{part}": pixels.astype(np.uint8 if part == uint8_part else np.float32) for part in ("train", "test")}
    np.savez(tmp_path / "mixed.npz", **parts, y_train=y, y_test=y)
    with pytest.raises(InputError, match="only uint8 ones are divided by 255; give both the same type"):
        load("arrays", path=tmp_path / "mixed.npz")


def scaled(tmp_path, train, test):
    """Return a data set of float images from 0 to 1, multiplied by a factor for each split."""
    pixels, y = images()
    pixels = ((pixels - pixels.min()) / np.ptp(pixels)).astype(np.float32)
    np.savez(tmp_path / "scaled.npz", x_train=pixels * train, x_test=pixels * test, y_train=y, y_test=y)
    return load("arrays", path=tmp_path / "scaled.npz")


@pytest.mark.parametrize("factors", [(255, 1), (1, 255), (65535, 1), (1, 16)])
def test_float_images_on_two_scales_are_refused(tmp_path, factors):
    with pytest.raises(InputError, match=r"training images have values from 0 to .*; give both the same scale"):
        scaled(tmp_path, *factors)


@pytest.mark.parametrize("factors", [(1, 0.05), (255, -1), (2, 100), (0, 255)])
def test_other_differences_of_scale_cause_a_warning(tmp_path, factors):
    with pytest.warns(UserWarning, match="if these are different scales, give both the same"):
        scaled(tmp_path, *factors)


@pytest.mark.parametrize("factors", [(1, 1), (255, 255), (255, 17), (1, 0.07), (1, -1), (0, 0)])
def test_float_images_on_one_scale_cause_no_warning(tmp_path, factors):
    with warnings.catch_warnings(action="error"):
        scaled(tmp_path, *factors)


def test_scales_of_features_are_not_compared(tmp_path):
    x, y = features()
    np.savez(tmp_path / "a.npz", x_train=x / x.max(), x_test=x * 1000, y_train=y, y_test=y)
    with warnings.catch_warnings(action="error"):
        load("arrays", path=tmp_path / "a.npz")


def test_floats_from_0_to_1_are_scaled(tmp_path):
    levels = np.array([[0, 0.25, 0.5], [0.75, 0.999, 1]], np.float32)
    Image.fromarray(levels).save(tmp_path / "a.tif")
    assert np.array_equal(decode(str(tmp_path / "a.tif"))[0], np.rint(levels.astype(float) * 255))


def test_orientation_and_transparency_are_those_of_torchvision(tmp_path):
    from torchvision.datasets.folder import pil_loader

    pixels = np.random.default_rng(0).integers(256, size=(6, 4, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # rotated by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "a.jpg", exif=exif)
    for path in tmp_path.iterdir():
        assert np.array_equal(decode(str(path)).transpose(1, 2, 0), np.asarray(pil_loader(path)))


# The package `datasets` is optional.


@pytest.mark.parametrize("kind", ["pictures", "numbers", "lists"])
def test_a_saved_data_set_of_hugging_face_is_read(tmp_path, kind):
    datasets = pytest.importorskip("datasets")
    x, y = features()
    names = list(IRIS.target_names)
    if kind == "pictures":
        pixels, y = images()
        types = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["b", "a"])}
        columns = {"image": [Image.fromarray(p) for p in pixels], "label": y.tolist()}
        saved = datasets.Dataset.from_dict(columns, features=datasets.Features(types))
        inputs, classes = pixels[:, None], ("b", "a")
    elif kind == "numbers":
        columns = {name: x[:, i] for i, name in enumerate("dcba")} | {
            "__index_level_0__": range(150),
            "target": [names[label] for label in y],
        }
        saved, inputs, classes = datasets.Dataset.from_dict(columns), x, tuple(names)
    else:
        columns = {"text": ["word"] * 150, "embedding": x.tolist(), "label": y.tolist()}
        saved, inputs, classes = datasets.Dataset.from_dict(columns), x, ("0", "1", "2")
    cut = len(y) // 3
    parts = {"validation": range(cut), "train": range(cut, len(y))}
    datasets.DatasetDict({n: saved.select(rows) for n, rows in parts.items()}).save_to_disk(str(tmp_path / "saved"))
    dataset = load("hugging_face", root=tmp_path / "saved")
    assert (dataset.name, dataset.classes) == ("saved", classes)
    for part, rows in ((dataset.train, slice(cut, None)), (dataset.test, slice(cut))):
        np.testing.assert_allclose(part.images, inputs[rows], rtol=1e-6)
        assert np.array_equal(part.labels, y[rows])
    with pytest.raises(InputError, match="has no column nothing; it has"):
        load("hugging_face", root=tmp_path / "saved", labels="nothing")


def test_classes_in_another_order_in_the_test_set_are_refused(tmp_path):
    datasets = pytest.importorskip("datasets")

    def split(names):
        types = {"x": datasets.Value("float32"), "y": datasets.Value("float32"), "label": datasets.ClassLabel(names=names)}
        columns = {"x": [0.0, 1.0], "y": [1.0, 0.0], "label": [0, 1]}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(types))

    datasets.DatasetDict(train=split(["a", "b"]), test=split(["b", "a"])).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match="label has other classes or another order in the test set"):
        load("hugging_face", root=tmp_path / "saved")


def test_without_the_package_a_saved_data_set_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="run `uv sync --extra datasets` or, without uv, `pip install datasets`"):
        load("hugging_face", root=tmp_path)
