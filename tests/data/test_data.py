import io
import itertools
import os
import pickle
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from scipy import stats
from torch.nn.functional import cross_entropy
from torchvision import transforms

import regioncount.data.dataset as dataset_functions
import regioncount.data.sources as data
from regioncount.data import Dataset, Split, crop_flip, image_folder, load, mixup, random_crops, random_resized_crop, splits
from regioncount.data.augmentation import build_augmentation, training_batches
from regioncount.data.sources import DatasetOptions, FolderOptions, SavedOptions
from regioncount.errors import InputError
from regioncount.registry import datasets

CONFIGS = Path(__file__).parents[2] / "configs" / "dataset"


def save_image(path, seed, size=(8, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.convert(mode).save(path, **options)
    return pixels


def make_folder(root, per_class=4, size=(8, 8), test="test"):
    """Write two classes of random PNG files, and return the pixels by relative path."""
    pixels = {}
    for split, number in (("train", per_class), (test, 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(number):
                relative = f"{split}/{name}/{i}.png"
                seed = len(pixels) + 100 * label
                pixels[relative] = save_image(root / relative, seed, size)
    return pixels


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("lost", ["0.png", "9.JPEG", "bird"])
def test_images_outside_class_folders_are_refused(tmp_path, split, lost):
    make_folder(tmp_path)
    (tmp_path / "labels").write_text("")
    (tmp_path / split / "labels.csv").symlink_to(tmp_path / "labels")
    assert len(load("image_folder", root=tmp_path).train) == 8
    if lost == "bird":
        (tmp_path / split / lost).symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / split / lost).write_bytes((tmp_path / "train/cat/0.png").read_bytes())
    reason = "is a broken link" if lost == "bird" else "is in no class folder"
    assert f"{split}: {lost} {reason}" in one_line_error(kind="image_folder", root=tmp_path)


def one_line_error(**arguments):
    with pytest.raises(InputError) as caught:
        load(arguments.pop("kind"), **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def random_split(number=23, channels=3, num_classes=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (number, channels, 8, 8), generator=g, dtype=torch.uint8)
    return Split(images, torch.randint(num_classes, (number,), generator=g))


def dataset_of(split, **changes):
    parts = {"name": "a", "classes": tuple("abcde"), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), **changes}
    return Dataset(train=split, test=random_split(seed=1), **parts)


# Splits and batches


def test_batches_follow_the_order_and_include_the_last_partial_one():
    split = random_split(23)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(3))
    for batch_order, expected in ((None, range(23)), (order, order.tolist())):
        batches = list(split.batches(5, batch_order))
        assert [len(labels) for _, labels in batches] == [5, 5, 5, 5, 3]
        rows = [row for images, labels in batches for row in zip(images, labels, strict=True)]
        for i, (image, label) in zip(expected, rows, strict=True):
            assert torch.equal(image, split.images[i])
            assert label == split.labels[i]
    assert torch.equal(split.take([7, 2, 7]), torch.stack([split.images[i] for i in (7, 2, 7)]))


def test_normalize_equals_torchvision():
    dataset = dataset_of(random_split())
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)])
    images = dataset.train.take([0, 3])
    expected = torch.stack([reference(image.permute(1, 2, 0).numpy()) for image in images])
    torch.testing.assert_close(dataset.normalize(images), expected)
    assert images.dtype == torch.uint8


# Fingerprints


def test_fingerprint_depends_on_all_content_and_nothing_else():
    split = random_split()
    base = dataset_of(split).fingerprints["train"]
    pixel, label = split.images.clone(), split.labels.clone()
    pixel[11, 2, 7, 7] += 1
    label[22] = (label[22] + 1) % 5
    different = [
        dataset_of(Split(pixel, split.labels)),
        dataset_of(Split(split.images, label)),
        dataset_of(Split(split.images.reshape(23, 3, 4, 16), split.labels)),
        dataset_of(split, mean=(0.5, 0.4, 0.31)),
        dataset_of(split, std=(0.2, 0.3, 0.41)),
        dataset_of(split, classes=tuple("abcdef")),
    ]
    fingerprints = {dataset.fingerprints["train"] for dataset in different}
    assert len(fingerprints | {base}) == len(different) + 1

    memory_layout = split.images.contiguous(memory_format=torch.channels_last)
    same = dataset_of(Split(memory_layout, split.labels.clone()), name="b", classes=tuple("vwxyz"))
    assert same.fingerprints["train"] == base
    assert same.to("cpu").fingerprints == same.fingerprints
    assert same.fingerprints["test"] != base


# Subsets and label noise


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_subsets_are_balanced_and_nested(counts, fraction, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    size = len(counts) + round(fraction * (len(labels) - len(counts)))

    def draw(size):
        return dataset_functions.balanced_subset(labels, size, len(counts), np.random.default_rng(seed), "train")

    chosen = draw(size)
    assert len(set(chosen.tolist())) == size
    drawn = np.bincount(labels[chosen], minlength=len(counts))
    # Only classes with too few images may have two images fewer than another class.
    assert all(drawn[c] == counts[c] or drawn[c] >= drawn.max() - 1 for c in range(len(counts)))
    if size > len(counts):
        assert set(draw(size - 1)) < set(chosen)


def test_remaining_images_of_a_subset_come_from_random_classes():
    labels = np.repeat(np.arange(4), 10)
    odd = set()
    for seed in range(60):
        chosen = dataset_functions.balanced_subset(labels, 9, 4, np.random.default_rng(seed), "train")
        odd.add(int(np.bincount(labels[chosen]).argmax()))
    assert odd == {0, 1, 2, 3}


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.333, 1.0])
def test_label_noise_replaces_the_given_fraction_of_labels(fraction):
    # With 10**12 classes, a random label practically never equals the old one.
    labels = torch.arange(1001)
    noisy = dataset_functions.noisy_labels(labels, fraction, 10**12, np.random.default_rng(0))
    assert (noisy != labels).sum() == round(fraction * 1001)
    assert torch.equal(labels, torch.arange(1001))


def test_label_noise_is_uniform_over_all_classes():
    noisy = dataset_functions.noisy_labels(torch.zeros(20_000, dtype=torch.int64), 1.0, 4, np.random.default_rng(0))
    # The tolerance is five standard deviations of a binomial count.
    assert (noisy.bincount() - 5000).abs().max() < 5 * (20_000 * 0.25 * 0.75) ** 0.5


def test_label_noise_changes_only_training_labels_and_their_fingerprint():
    clean, noisy = load("digits"), load("digits", label_noise=0.5)
    assert torch.equal(clean.train.images, noisy.train.images)
    assert 0 < (clean.train.labels != noisy.train.labels).sum() <= 150
    assert clean.fingerprints["train"] != noisy.fingerprints["train"]
    assert clean.fingerprints["test"] == noisy.fingerprints["test"]


# Digits


def test_digits_are_split_into_balanced_disjoint_parts():
    from sklearn.datasets import load_digits

    dataset = load("digits", seed=3)
    assert (dataset.name, dataset.num_classes, dataset.in_channels, dataset.image_size) == ("digits", 10, 1, (8, 8))
    assert dataset.train.labels.bincount().tolist() == [30] * 10
    original = load_digits()
    everything = torch.cat([dataset.train.images, dataset.test.images]).double() / 255 * 16
    labels = torch.cat([dataset.train.labels, dataset.test.labels])
    ours = torch.cat([everything.round().flatten(1), labels[:, None]], 1)
    theirs = np.column_stack([original.data, original.target])
    assert sorted(ours.tolist()) == sorted(theirs.tolist())
    assert dataset.train.images.max() == 255

    scaled = dataset.train.images.double() / 255
    assert dataset.mean == (pytest.approx(scaled.mean().item(), abs=5.1e-5),)
    assert dataset.std == (pytest.approx(scaled.std(correction=0).item(), abs=5.1e-5),)


def test_digits_depend_only_on_the_seed():
    assert load("digits", seed=1).fingerprints == load("digits", seed=1).fingerprints
    assert load("digits", seed=1).fingerprints["train"] != load("digits", seed=2).fingerprints["train"]
    small = load("digits", train_size=55, test_size=20, resize=16, title="small")
    assert (small.name, small.image_size, len(small.train), len(small.test)) == ("small", (16, 16), 55, 20)
    assert small.train.images.dtype == torch.uint8
    assert sorted(small.train.labels.bincount().tolist()) == [5] * 5 + [6] * 5


# Image folders


def test_image_folder_reads_every_pixel_and_its_class(tmp_path):
    pixels = make_folder(tmp_path / "pets", test="val")
    for name in (".DS_Store", "Thumbs.db", "._0.png"):
        (tmp_path / "pets/train/cat" / name).write_bytes(b"no image")
    (tmp_path / "pets/train/.hidden").mkdir()
    dataset = load("image_folder", root=tmp_path / "pets")
    assert (dataset.name, dataset.classes, dataset.image_size) == ("pets", ("cat", "dog"), (8, 8))
    for split, folder in ((dataset.train, "train"), (dataset.test, "val")):
        expected = [(p, path) for path, p in sorted(pixels.items()) if path.startswith(folder)]
        for image, label, (array, path) in zip(split.images, split.labels, expected, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), array)
            assert dataset.classes[label] == path.split("/")[1]
    train = np.stack([array for path, array in pixels.items() if path.startswith("train")]) / 255
    assert dataset.mean == pytest.approx(train.mean((0, 1, 2)), abs=5.1e-5)
    assert dataset.std == pytest.approx(train.std((0, 1, 2)), abs=5.1e-5)

    subset = load("image_folder", root=tmp_path / "pets", train_size=3, title="CIFAR-10 (JPEG)")
    assert (subset.name, subset.mean, subset.std) == ("CIFAR-10 (JPEG)", dataset.mean, dataset.std)


def test_image_folder_is_decoded_once_until_it_changes(tmp_path, monkeypatch):
    make_folder(tmp_path)
    decoded = []
    decode = image_folder.decode
    monkeypatch.setattr(image_folder, "decode", lambda path, *rest: decoded.append(path) or decode(path, *rest))

    def number_decoded(**options):
        decoded.clear()
        dataset = load("image_folder", root=tmp_path, **options)
        return len(decoded), dataset

    count, first = number_decoded()
    assert count == 12
    count, cached = number_decoded()
    assert (count, cached.fingerprints) == (0, first.fingerprints)
    count, resized = number_decoded(resize=4)
    assert (count, resized.image_size) == (12, (4, 4))
    assert number_decoded()[0] == 0  # each size has its own cache

    replaced = save_image(tmp_path / "train/cat/0.png", seed=999)
    os.utime(tmp_path / "train/cat/0.png", ns=(1, 1))
    count, changed = number_decoded()
    assert count == 12
    assert np.array_equal(changed.train.images[0].permute(1, 2, 0).numpy(), replaced)
    (tmp_path / "train/cat/0.png").rename(tmp_path / "train/cat/9.png")
    count, renamed = number_decoded()
    assert count == 12
    assert np.array_equal(renamed.train.images[3].permute(1, 2, 0).numpy(), replaced)


def test_a_damaged_cache_is_replaced(tmp_path):
    make_folder(tmp_path)
    expected = load("image_folder", root=tmp_path).fingerprints
    (cache,) = tmp_path.glob("*.npz")
    intact = cache.read_bytes()
    with np.load(cache) as stored:
        key = stored["key"]
    flipped = bytearray(intact)
    flipped[len(flipped) // 2] ^= 1
    fewer, other_type, no_images = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(fewer, key=key, images=np.zeros((5, 3, 8, 8), np.uint8))
    np.savez(other_type, key=key, images=np.zeros((12, 3, 8, 8), np.float32))
    np.savez(no_images, key=key)
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    damages = [b"", b"garbage", intact[:1000], bytes(flipped), pickle.dumps({"key": str(key)})]
    damages += [file.getvalue() for file in (fewer, other_type, no_images, array)]
    for damaged in damages:
        cache.write_bytes(damaged)
        assert load("image_folder", root=tmp_path).fingerprints == expected
        assert cache.read_bytes() == intact
    assert sorted(path.name for path in tmp_path.iterdir()) == [cache.name, "test", "train"]


def test_a_cache_that_is_a_pipe_or_a_bomb_is_replaced(tmp_path):
    make_folder(tmp_path)
    expected = load("image_folder", root=tmp_path).fingerprints
    (cache,) = tmp_path.glob("*.npz")
    intact = cache.read_bytes()
    with np.load(cache) as stored:
        np.savez_compressed(bomb := io.BytesIO(), key=stored["key"], images=np.zeros((12, 3, 1000, 1000), np.uint8))
    cache.write_bytes(bomb.getvalue())
    assert load("image_folder", root=tmp_path).fingerprints == expected
    assert cache.read_bytes() == intact
    cache.unlink()
    os.mkfifo(cache)
    assert load("image_folder", root=tmp_path).fingerprints == expected
    assert cache.read_bytes() == intact


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    make_folder(tmp_path)
    old, new = tmp_path / ".regioncount-original.npz.0123", tmp_path / ".regioncount-32.npz.4567.part"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    load("image_folder", root=tmp_path)
    assert not old.exists()
    assert new.exists()


def test_a_cache_that_cannot_be_written_causes_a_warning(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "regioncount-original.npz").mkdir()
    with pytest.warns(UserWarning, match="not cached"):
        dataset = load("image_folder", root=tmp_path)
    assert len(dataset.train) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["regioncount-original.npz", "test", "train"]


def test_a_moved_folder_keeps_its_fingerprints(tmp_path):
    make_folder(tmp_path / "a")
    before = load("image_folder", root=tmp_path / "a").fingerprints
    (tmp_path / "a/regioncount-original.npz").unlink()
    (tmp_path / "a").rename(tmp_path / "b")
    assert load("image_folder", root=tmp_path / "b").fingerprints == before


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "L"), ("a.png", "P"), ("a.png", "RGBA"), ("a.png", "1"), ("a.jpg", "CMYK"), ("a.JPEG", "RGB")],
)
def test_every_mode_is_converted_to_rgb(tmp_path, name, mode):
    save_image(tmp_path / name, 0, (6, 4), mode)
    image = image_folder.decode(str(tmp_path / name))
    assert (image.shape, image.dtype) == ((3, 4, 6), np.uint8)
    with Image.open(tmp_path / name) as opened:
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(opened.convert("RGB")))


def test_a_folder_in_a_class_folder_is_refused(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train/cat/more").mkdir()
    with pytest.raises(InputError, match="train/cat: more is a folder"):
        load("image_folder", root=tmp_path)


def test_a_folder_of_one_class_is_refused(tmp_path):
    make_folder(tmp_path)
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / split / "dog")
    with pytest.raises(InputError, match="has 1 class folder"):
        load("image_folder", root=tmp_path)


@pytest.mark.parametrize("size", [(512, 640), (512, 256), (64, 64), (128, 256)])
def test_centre_crop_matches_torchvision(tmp_path, size):
    save_image(tmp_path / "a.png", 0, size)
    with Image.open(tmp_path / "a.png") as opened:
        steps = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(56)])
        expected = np.asarray(steps(opened)).transpose(2, 0, 1)
        square = np.asarray(transforms.Compose([transforms.Resize(56), transforms.CenterCrop(56)])(opened))
    # Both compute in 8 bits; intermediate rounding may differ by one level.
    crop = image_folder.decode(str(tmp_path / "a.png"), 56, 224 / 256)
    np.testing.assert_allclose(crop.astype(int), expected, rtol=0, atol=1)
    crop = image_folder.decode(str(tmp_path / "a.png"), 56)
    np.testing.assert_allclose(crop.astype(int), square.transpose(2, 0, 1), rtol=0, atol=1)


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (30, 30)])
def test_squashed_images_match_torchvision(tmp_path, size):
    make_folder(tmp_path)
    save_image(tmp_path / "test/cat/9.png", 7, size)
    with Image.open(tmp_path / "test/cat/9.png") as opened:
        expected = np.asarray(transforms.Resize((24, 24))(opened)).transpose(2, 0, 1)
    for kind in ("image_folder", "imagenet"):
        test = load(kind, root=tmp_path, resize=24, squash=True, workers=0).test
        assert np.array_equal(test.take([2])[0], expected)  # the third file of the first class
        cropped = load(kind, root=tmp_path, resize=24, workers=0).test.take([2])[0]
        assert np.array_equal(cropped, expected) == (size[0] == size[1] and kind == "image_folder")


def test_squashing_enters_fingerprints_and_caches_only_if_it_is_set(tmp_path, monkeypatch):
    make_folder(tmp_path, size=(20, 14))
    for kind in ("image_folder", "imagenet"):
        plain = load(kind, root=tmp_path, resize=12).fingerprints
        assert load(kind, root=tmp_path, resize=12, squash=False).fingerprints == plain
        squashed = load(kind, root=tmp_path, resize=12, squash=True)
        assert squashed.fingerprints["train"] != plain["train"]
        assert squashed.fingerprints["test"] != plain["test"]
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["regioncount-12-squashed.npz", "regioncount-12.npz"]
    monkeypatch.setattr(image_folder, "decode", None)  # both are read from their caches
    assert load("image_folder", root=tmp_path, resize=12).fingerprints != (
        load("image_folder", root=tmp_path, resize=12, squash=True).fingerprints
    )
    assert "squash" not in FolderOptions(resize=12).model_dump()
    assert FolderOptions(resize=12, squash=True).model_dump()["squash"] is True


def test_a_very_thin_image_is_decoded(tmp_path):
    save_image(tmp_path / "a.png", 0, (1, 20_000))
    assert image_folder.decode(str(tmp_path / "a.png"), 224, 224 / 256).shape == (3, 224, 224)


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def random_arrays():
    split = random_split()
    return split.images.numpy(), split.labels.numpy()


def truncate(path):
    path.write_bytes(path.read_bytes()[:150])


BROKEN_LAYOUTS = {
    "no train": (lambda root: remove(root / "train"), "train"),
    "no test": (lambda root: remove(root / "test"), "'test' or 'val'"),
    "no classes": (lambda root: [remove(root / "train" / name) for name in ("cat", "dog")], "no class folders"),
    "class only in train": (lambda root: remove(root / "test/cat"), "'cat'"),
    "class only in test": (lambda root: save_image(root / "test/emu/1.png", 0), "'emu'"),
    "empty class": (lambda root: [remove(path) for path in (root / "train/dog").iterdir()], "train/dog"),
    "not an image": (lambda root: (root / "train/dog/2.png").write_text("hello"), "train/dog/2.png"),
    "empty file": (lambda root: (root / "train/dog/2.png").write_bytes(b""), "train/dog/2.png"),
    "truncated": (lambda root: truncate(root / "test/dog/1.png"), "test/dog/1.png"),
}


@pytest.mark.parametrize("kind", ["image_folder", "imagenet"])
@pytest.mark.parametrize("damage", BROKEN_LAYOUTS)
def test_a_broken_folder_raises_a_one_line_error_with_its_path(tmp_path, kind, damage):
    make_folder(tmp_path)
    break_folder, path = BROKEN_LAYOUTS[damage]
    break_folder(tmp_path)

    def read_everything():
        dataset = load(kind, root=tmp_path, workers=0)
        return [list(split.batches(3)) for split in (dataset.train, dataset.test)]

    with pytest.raises(InputError) as caught:
        read_everything()
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_of_two_sizes_need_resize(tmp_path):
    make_folder(tmp_path)
    save_image(tmp_path / "test/dog/1.png", 0, size=(9, 7))
    message = one_line_error(kind="image_folder", root=tmp_path)
    assert all(part in message for part in ("test/dog/1.png", "9 x 7", "8 x 8", "dataset.resize=32"))
    dataset = load("image_folder", root=tmp_path, resize=6)
    assert dataset.train.images.shape == (8, 3, 6, 6)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    make_folder(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    assert "train/cat/" in one_line_error(kind="image_folder", root=tmp_path)


# Streamed images


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_batches_equal_those_in_memory(tmp_path, workers):
    make_folder(tmp_path, size=(20, 14))
    dataset = load("imagenet", root=tmp_path, resize=12, workers=workers, label_noise=0.5)
    assert (dataset.name, dataset.in_channels, dataset.image_size) == ("ImageNet", 3, (12, 12))
    paths = sorted(str(path) for path in (tmp_path / "train").glob("*/*"))
    images = torch.from_numpy(np.stack([image_folder.decode(path, 12, 224 / 256) for path in paths]))
    in_memory = Split(images, dataset.train.labels)
    before = torch.get_rng_state()
    for order in (None, torch.tensor([5, 1, 0, 7, 3, 2, 4, 6])):
        pairs = zip(dataset.train.batches(3, order), in_memory.batches(3, order), strict=True)
        for (streamed, labels), (expected, expected_labels) in pairs:
            assert torch.equal(streamed, expected)
            assert torch.equal(labels, expected_labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(dataset.train.take([6, 1]), in_memory.take([6, 1]))
    assert len(dataset.train) == 8


def test_images_are_decoded_without_workers_if_the_shared_memory_is_full(tmp_path, monkeypatch):
    make_folder(tmp_path)
    dataset = load("imagenet", root=tmp_path, resize=12, workers=2)
    monkeypatch.setattr(splits, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(splits.shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * 2 * 3 * 3 * 12 * 12 - 1))
    with pytest.warns(UserWarning, match=r"MB free, but dataset\.workers=2 needs"):
        batches = list(dataset.train.batches(3))
    assert torch.equal(torch.cat([images for images, _ in batches]), dataset.train.take(range(8)))
    assert [images.shape[0] for images, _ in dataset.train.batches(2)] == [2] * 4  # fits


def test_a_streamed_subset_keeps_images_with_their_labels(tmp_path):
    make_folder(tmp_path)
    dataset = load("imagenet", root=tmp_path, resize=7, train_size=4, workers=0)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    full_split = load("imagenet", root=tmp_path, resize=7, workers=0).train
    position = {image.numpy().tobytes(): i for i, image in enumerate(full_split.take(range(8)))}
    for image, label in zip(dataset.train.take(range(4)), dataset.train.labels, strict=True):
        assert full_split.labels[position[image.numpy().tobytes()]] == label


def test_an_undecodable_file_in_a_worker_raises_a_one_line_error(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "train/dog/1.png").write_bytes(b"hello")
    dataset = load("imagenet", root=tmp_path, workers=1)
    with pytest.raises(InputError) as caught:
        list(dataset.train.batches(2))
    assert "train/dog/1.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_streamed_fingerprint_depends_on_files_labels_and_size(tmp_path):
    make_folder(tmp_path / "a")

    def fingerprint(root="a", **options):
        return load("imagenet", root=tmp_path / root, workers=0, **options).fingerprints["train"]

    base = fingerprint()
    assert base == fingerprint(title="other")
    assert len({base, fingerprint(resize=32), fingerprint(label_noise=0.9), fingerprint(train_size=4)}) == 4
    (tmp_path / "a").rename(tmp_path / "b")
    assert fingerprint("b") == base
    (tmp_path / "b/train/cat/0.png").rename(tmp_path / "b/train/cat/00.png")
    renamed = fingerprint("b")
    with open(tmp_path / "b/train/cat/00.png", "ab") as file:
        file.write(b"longer")
    assert len({base, renamed, fingerprint("b")}) == 3


# Downloaded data sets


@pytest.mark.parametrize(("kind", "classes"), [("cifar10", 10), ("cifar100", 100), ("svhn", 10)])
def test_torchvision_data_sets_are_converted_to_splits(tmp_path, monkeypatch, kind, classes):
    images = np.random.default_rng(0).integers(256, size=(200, 32, 32, 3), dtype=np.uint8)

    class Cifar:
        def __init__(self, root, train, download):
            assert (Path(root), download) == (tmp_path, True)
            self.data = images if train else images[:100]
            self.targets = [i % classes for i in range(len(self.data))]
            self.classes = [f"class {i}" for i in range(classes)]

    class Svhn:
        def __init__(self, root, split, download):
            assert (Path(root), download) == (tmp_path, True)
            chosen = images if split == "train" else images[:100]
            self.data = chosen.transpose(0, 3, 1, 2)
            self.labels = np.arange(len(chosen)) % classes

    for name, replacement in (("CIFAR10", Cifar), ("CIFAR100", Cifar), ("SVHN", Svhn)):
        monkeypatch.setattr(torchvision.datasets, name, replacement)
    dataset = load(kind, root=tmp_path)
    assert np.array_equal(dataset.train.images.permute(0, 2, 3, 1).numpy(), images)
    assert dataset.train.labels.tolist() == [i % classes for i in range(200)]
    assert (len(dataset.test), dataset.num_classes, dataset.image_size) == (100, classes, (32, 32))
    assert dataset.train.labels.dtype == torch.int64
    assert load(kind, root=tmp_path, resize=16).train.images.shape == (200, 3, 16, 16)
    assert str(200) in one_line_error(kind=kind, root=tmp_path, train_size=201)


class BrokenResponse(io.BytesIO):
    """A response that ends in the middle of a file."""

    length = 1000
    url = None


@pytest.mark.parametrize(("kind", "file"), [("cifar10", "cifar-10-python.tar.gz"), ("svhn", "train_32x32.mat")])
@pytest.mark.parametrize("failure", ["unreachable", "broken off"])
def test_a_failed_download_names_the_file_and_the_folder(tmp_path, monkeypatch, kind, file, failure):
    def open_url(request):
        if failure == "unreachable":
            raise urllib.error.URLError("no route to host")
        return BrokenResponse(b"half a file")

    monkeypatch.setattr(urllib.request, "urlopen", open_url)
    for _ in range(2):  # leftovers of the first attempt must not count as data
        message = one_line_error(kind=kind, root=tmp_path / "data")
        assert all(part in message for part in (file, str(tmp_path / "data"), "dataset=image_folder"))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"kind": "mnist"}, "mnist"),
        ({"kind": "image_folder"}, "dataset.root"),
        ({"kind": "imagenet"}, "dataset.root"),
        ({"kind": "image_folder", "root": "/no/such/folder"}, "/no/such/folder"),
        ({"kind": "digits", "train_size": 2000}, "1797"),
        ({"kind": "digits", "train_size": 1797}, "1797"),
        ({"kind": "digits", "train_size": 9}, "10"),
        ({"kind": "digits", "test_size": 1498}, "1497"),
        ({"kind": "digits", "label_noise": 1.5}, "label_noise"),
        ({"kind": "digits", "label_noise": float("nan")}, "label_noise"),
        ({"kind": "digits", "resize": 0}, "resize"),
        ({"kind": "digits", "seed": -1}, "seed"),
        ({"kind": "digits", "squash": True}, "dataset.squash: digits has no such option"),
        ({"kind": "cifar10", "squash": True}, "dataset.squash: cifar10 has no such option"),
        ({"kind": "image_folder", "root": ".", "squash": True}, "dataset.squash=true needs dataset.resize"),
    ],
)
def test_invalid_arguments_raise_a_one_line_error(arguments, fragment):
    assert fragment in one_line_error(**arguments)


@pytest.mark.parametrize("kind", datasets.names())
def test_every_data_set_has_a_configuration_that_load_accepts(kind, monkeypatch, tmp_path):
    options = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{kind}.yaml"))
    assert options.pop("name") == kind
    if kind in ("image_folder", "imagenet"):
        make_folder(tmp_path)
        options["root"] = tmp_path
    elif kind == "arrays":
        options["path"] = tmp_path.with_suffix(".npz")
        np.savez(options["path"], x=random_arrays()[0], y=random_arrays()[1])
    elif kind == "hugging_face":  # see test_kinds.py
        of_folders = {"workers", "shorter_side", "resampling", "output_classes"}
        assert options.keys() == SavedOptions.model_fields.keys() - {"name"} - of_folders
        return
    elif kind != "digits":
        monkeypatch.setattr(data, "_download", lambda *_: ([random_arrays(), random_arrays()], tuple("abcde")))
    assert load(kind, **options).name == datasets[kind].traits.get("title", tmp_path.name)


# Augmentation


def test_crop_flip_returns_all_crops_of_the_padded_image_equally_often():
    g = torch.Generator().manual_seed(0)
    image = torch.randint(1, 256, (2, 8, 16), generator=g, dtype=torch.uint8)
    padded = np.pad(image.numpy(), ((0, 0), (1, 1), (2, 2)))
    crops = {}
    for top in range(3):
        for left in range(5):
            crop = padded[:, top : top + 8, left : left + 16]
            crops[crop.tobytes()] = (top, left, False)
            crops[crop[:, :, ::-1].tobytes()] = (top, left, True)
    number = 6000
    result = crop_flip(image.expand(number, -1, -1, -1), g)
    assert (result.shape, result.dtype) == ((number, 2, 8, 16), torch.uint8)
    seen = dict.fromkeys(crops.values(), 0)
    for crop in result.numpy():
        seen[crops[crop.tobytes()]] += 1
    assert len(seen) == 30
    # Each of 30 equally likely crops must be within five standard deviations of its expected count.
    assert max(abs(count - number / 30) for count in seen.values()) < 5 * (number / 30 * 29 / 30) ** 0.5


def test_crop_flip_crops_images_independently_and_pads_4_pixels_at_32():
    images = torch.arange(1, 9, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 32, 32)
    margins = set()
    for seed in range(30):
        result = crop_flip(images, torch.Generator().manual_seed(seed))
        again = crop_flip(images, torch.Generator().manual_seed(seed))
        assert torch.equal(result, again)
        for i, image in enumerate(result):
            assert set(image.unique().tolist()) <= {0, i + 1}
            rows = int(image[0].any(1).sum())
            margins.add(32 - rows)
    assert margins == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("height", "width"), [(32, 32), (60, 90), (90, 33), (200, 20), (7, 130), (1, 1)])
def test_boxes_of_random_crops_are_distributed_as_those_of_torchvision(height, width):
    number = 4000
    image = torch.empty(3, height, width, device="meta")
    torch.manual_seed(0)
    parameters = transforms.RandomResizedCrop.get_params
    theirs = np.array([parameters(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(number)])
    ours, flips = random_crops.crop_boxes(np.random.default_rng(0).random((number, random_crops.DRAWS)), height, width)
    assert (ours >= [0, 0, 1, 1]).all()
    assert (ours[:, :2] + ours[:, 2:] <= [height, width]).all()
    for column in range(4):  # a two-sample test at 1e-4, with ties
        assert stats.ks_2samp(ours[:, column], theirs[:, column], method="asymp").pvalue > 1e-4
    # Position and size are not independent: the distances to the far sides have the same distributions, too.
    for column in range(2):
        far = [boxes[:, column] + boxes[:, column + 2] for boxes in (ours, theirs)]
        assert stats.ks_2samp(*far, method="asymp").pvalue > 1e-4
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / number**0.5


def test_a_box_that_never_fits_is_the_fallback_of_torchvision():
    """In images this long, no box of the smallest area has an allowed aspect ratio."""
    for height, width in ((4, 400), (400, 4), (3, 1000)):
        draws = np.random.default_rng(0).random((20, random_crops.DRAWS))
        expected = transforms.RandomResizedCrop.get_params(torch.empty(3, height, width), [0.08, 1.0], [3 / 4, 4 / 3])
        assert (random_crops.crop_boxes(draws, height, width)[0] == expected).all()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 48), (8, 8)])
def test_random_resized_crops_of_a_batch_have_the_pixels_of_torchvision(height, width):
    images = torch.randint(256, (40, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    result = random_resized_crop(images, torch.Generator().manual_seed(1))
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    draws = torch.rand(40, random_crops.DRAWS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    boxes, flips = random_crops.crop_boxes(draws.numpy(), height, width)
    assert 0 < flips.sum() < 40
    for image, ours, box, flipped in zip(images, result, boxes.tolist(), flips, strict=True):
        expected = transforms.functional.resized_crop(image.float(), *box, size=[height, width], antialias=True).round()
        expected = expected.flip(2) if flipped else expected
        # Sums in another order may be rounded to the neighbouring level.
        torch.testing.assert_close(ours.float(), expected, rtol=0, atol=1)
        assert (ours.float() != expected).float().mean() < 0.01


@pytest.mark.parametrize("squash", [False, True])
def test_random_crops_of_streamed_images_are_taken_from_the_files(tmp_path, squash):
    sizes = [(40, 64), (64, 40), (30, 30), (150, 20)]
    for split, label, number in itertools.product(("train", "test"), ("cat", "dog"), range(4)):
        save_image(tmp_path / split / label / f"{number}.png", number, sizes[number])
    datasets_ = [load("imagenet", root=tmp_path, resize=24, squash=squash, workers=workers) for workers in (0, 1, 2)]
    order = torch.tensor([6, 1, 0, 7, 3, 2, 4, 5])
    augment = build_augmentation("random_resized_crop", datasets_[0])

    def epoch(dataset, seed, order=order, batch_size=3):
        generator = torch.Generator().manual_seed(seed)
        batches = training_batches("random_resized_crop", dataset, batch_size, order, generator)
        pairs = [(images, *augment(images, labels, generator)) for images, labels in batches]
        return [torch.cat(parts) for parts in zip(*pairs, strict=True)]

    images, inputs, labels = epoch(datasets_[0], seed=5)
    torch.testing.assert_close(inputs, datasets_[0].normalize(images))
    assert torch.equal(labels, datasets_[0].train.labels[order])
    for dataset in datasets_:
        assert torch.equal(epoch(dataset, seed=5)[0], images)
    assert not torch.equal(epoch(datasets_[0], seed=6)[0], images)
    # Another order gives the same crop of each image.
    assert torch.equal(epoch(datasets_[0], seed=5, order=torch.arange(8), batch_size=8)[0][order], images)

    seed = int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(5)))
    for index, ours in zip(order.tolist(), images, strict=True):
        with Image.open(datasets_[0].train.paths[index]) as opened:
            (box,), (flipped,) = random_crops.crop_boxes(
                random_crops.draws_of_image(seed, index), opened.height, opened.width
            )
            crop = transforms.functional.resized_crop(opened, *box.tolist(), size=[24, 24])
        expected = np.asarray(transforms.functional.hflip(crop) if flipped else crop)
        assert np.array_equal(ours.permute(1, 2, 0).numpy(), expected)
    # Evaluation is not augmented.
    assert torch.equal(torch.cat([batch for batch, _ in datasets_[0].train.batches(3)]), datasets_[0].train.take(range(8)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), alpha=st.sampled_from([0.2, 1.0, 4.0]), batch=st.integers(1, 9))
def test_mixup_mixes_images_and_labels_with_the_same_weights(seed, alpha, batch):
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 2, 3, 3, generator=g)
    labels = torch.randperm(batch, generator=g)  # one image per class, so a target shows which images were mixed
    mixed, targets = mixup(images, labels, batch, g, alpha)
    torch.testing.assert_close(targets.sum(1), torch.ones(batch))
    image_of = {int(label): image for label, image in zip(labels, images, strict=True)}
    for i in range(batch):
        expected = sum(float(targets[i, c]) * image_of[c] for c in range(batch))
        torch.testing.assert_close(mixed[i], expected, atol=1e-5, rtol=1e-5)
    # All images have the same weight in their mixture, except an image that is mixed with itself.
    own = targets[torch.arange(batch), labels]
    weights = {round(float(w), 4) for w in own if w < 1 - 1e-6}
    assert len(weights) <= 1
    assert targets.dtype == torch.float32
    assert torch.isfinite(cross_entropy(torch.zeros(batch, batch), targets))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_mixup_weights_follow_the_beta_distribution(alpha):
    from scipy.stats import beta, kstest

    g = torch.Generator().manual_seed(0)
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    weights = []
    while len(weights) < 1500:
        mixed, _ = mixup(images, torch.tensor([0, 1]), 2, g, alpha)
        if not torch.equal(mixed, images):  # the weight is visible only if the two images are exchanged
            weights.append(1 - mixed[0].item())
    assert kstest(weights, beta(alpha, alpha).cdf).pvalue > 1e-4


def test_the_cache_is_replaced_if_an_image_changes_but_not_its_size_and_time(tmp_path):
    make_folder(tmp_path)
    first = load("image_folder", root=tmp_path).train.images
    path = tmp_path / "train/cat/0.png"
    status = path.stat()
    pixels = np.asarray(Image.open(path)).copy()
    for value in range(256):  # find another image whose file has the same size
        pixels[0, 0, 0] = value
        Image.fromarray(pixels).save(path)
        if path.stat().st_size == status.st_size and value != first[0, 0, 0, 0]:
            break
    else:
        pytest.skip("no image with the same file size")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load("image_folder", root=tmp_path).train.images[0, 0, 0, 0] == value


def test_images_are_normalized_by_the_given_constants():
    plain, given = load("digits"), load("digits", mean=[0.5], std=[0.25])
    images = plain.train.images[:4]
    torch.testing.assert_close(given.normalize(images), (images.float() / 255 - 0.5) / 0.25)
    assert given.fingerprints["train"] != plain.fingerprints["train"]
    options = DatasetOptions(mean=[0.5], std=[0.25]).model_dump()
    assert options.keys() - DatasetOptions().model_dump().keys() == {"mean", "std"}


@pytest.mark.parametrize(
    "options",
    [{"mean": [0.5]}, {"std": [0.5]}, {"mean": [0.5] * 3, "std": [0.5] * 3}, {"mean": [0.5], "std": [0.0]}, {"mean": 0.5}],
)
def test_invalid_constants_of_normalization_are_refused(options):
    with pytest.raises(InputError, match=r"dataset\.(mean|std)"):
        load("digits", **options)
