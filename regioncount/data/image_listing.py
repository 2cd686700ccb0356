"""The image files of a folder and their classes, in the layouts of torchvision, ILSVRC and Tiny ImageNet."""

import os
import unicodedata
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from regioncount.errors import InputError
from regioncount.options import abbreviate

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SYSTEM_FILES = ("Thumbs.db", "desktop.ini")  # Windows writes them into folders of images
LAYOUT = "expected train/<class>/* and test/<class>/* (or val/<class>/*)"
IMAGES, ANNOTATIONS = "images", "val_annotations.txt"  # of Tiny ImageNet


@dataclass(frozen=True)
class ImageFiles:
    """The image files of one split, sorted by class and then by name."""

    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """File sizes in bytes."""
    changed: list[tuple[int, int]] = field(default_factory=list)
    """Times of the last change of the content and of the file's attributes in nanoseconds. Programs that unpack or copy
    files may set the first one."""

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, entry: os.DirEntry[str], label: int) -> None:
        """Append a file."""
        status = entry.stat()
        self.paths.append(entry.path)
        self.labels.append(label)
        self.sizes.append(status.st_size)
        self.changed.append((status.st_mtime_ns, status.st_ctime_ns))


def list_folder(root: Path) -> tuple[ImageFiles, ImageFiles, tuple[str, ...]]:
    """List the images of both splits.

    The test set is test/<class>/* or, without such a folder or if it has no class folders, as in ILSVRC, val/<class>/*. In
    the layout of Tiny ImageNet, images are in train/<class>/images/* and val/images/*, and val/val_annotations.txt has the
    classes of the latter. Names of classes are compared after Unicode normalization (NFC). Hidden files and `SYSTEM_FILES`
    are ignored. Other files in class folders that are no images, and broken links, are left out with a warning.

    Args:
        root: The folder.

    Returns:
        The training files, the test files, and the class names in sorted order. A label is an index into the names.

    Raises:
        InputError: The layout differs, there are fewer than two classes, the splits have different classes, two folders
            have the same class name, a class has no images, or a class folder has folders in it.
    """
    train = root / "train"
    if not train.is_dir():
        raise InputError(f"{root} has no folder 'train'; {LAYOUT}")
    train_folders = _class_folders(train)
    if len(train_folders) < 2:
        number = len(train_folders)
        raise InputError(f"{train} has {number or 'no'} class folder{'s' * (number != 1)}; {LAYOUT}, two or more classes")
    classes = tuple(train_folders)
    test = _test_folder(root, classes)
    skipped: list[tuple[str, str]] = []
    train_files = _list_files(train_folders, skipped)
    if _is_annotated(test, classes):
        test_files = _list_annotated(test, classes)
    else:
        test_folders = _class_folders(test)
        if unmatched := set(classes) ^ test_folders.keys():
            name = min(unmatched)
            present, absent = (train, test) if name in classes else (test, train)
            raise InputError(f"class '{name}' is in {present} but not in {absent}; both need the same class folders")
        test_files = _list_files(test_folders, skipped)
    if skipped:
        kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(kind for kind, _ in skipped).most_common())
        first = os.path.relpath(skipped[0][1], root)
        message = f"{root}: left out {len(skipped)} files in class folders that are no images: {kinds} (such as {first})"
        warnings.warn(message, stacklevel=2)
    return train_files, test_files, classes


def _test_folder(root: Path, classes: tuple[str, ...]) -> Path:
    """Return the first of root/test and root/val that has class folders; the first that exists if neither has."""
    folders = [root / name for name in ("test", "val") if (root / name).is_dir()]
    if not folders:
        raise InputError(f"{root} has no folder 'test' or 'val'; {LAYOUT}")

    def has_classes(folder: Path) -> bool:
        names = [entry.name for entry in _scan(folder) if entry.is_dir()]
        return bool(names) and names != [IMAGES]

    labelled = (folder for folder in folders if _is_annotated(folder, classes) or has_classes(folder))
    return next(labelled, folders[0])


def _is_annotated(folder: Path, classes: tuple[str, ...]) -> bool:
    """Return whether a folder has the layout of Tiny ImageNet's validation set."""
    names = [entry.name for entry in _scan(folder) if entry.is_dir()]
    return names == [IMAGES] and IMAGES not in classes and (folder / ANNOTATIONS).is_file()


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror})") from error


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(EXTENSIONS) and entry.is_file()


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return the class folders of a split by their names in Unicode's form NFC, sorted by name."""
    entries = _scan(folder)
    others = [entry for entry in entries if not entry.is_dir() and entry.name not in SYSTEM_FILES]
    if broken := [entry.name for entry in others if not Path(entry).exists()]:
        raise InputError(f"{folder}: {abbreviate(broken[0])} is a broken link; remove it")
    if misplaced := [entry.name for entry in others if entry.name.lower().endswith(EXTENSIONS)]:
        raise InputError(f"{folder}: {abbreviate(misplaced[0])} is in no class folder; move or remove it")
    folders: dict[str, Path] = {}
    for entry in entries:
        if not entry.is_dir():
            continue
        if not entry.name.isprintable():
            raise InputError(f"{folder}: the class folder {entry.name!r} has unprintable characters in its name; rename it")
        name = unicodedata.normalize("NFC", entry.name)
        if name in folders:
            raise InputError(f"{folder}: two class folders are named '{name}', in different Unicode forms; merge them")
        folders[name] = folder / entry.name
    return dict(sorted(folders.items()))


def _list_files(folders: dict[str, Path], skipped: list[tuple[str, str]]) -> ImageFiles:
    """List the images in class folders, and append the kind and the path of each file that is no image to `skipped`."""
    files = ImageFiles()
    for label, folder in enumerate(folders.values()):
        entries = [entry for entry in _scan(folder) if entry.name not in SYSTEM_FILES]
        if [entry.name for entry in entries if entry.is_dir()] == [IMAGES] and not any(map(_is_image, entries)):
            skipped += [(_kind(entry), entry.path) for entry in entries if not entry.is_dir()]
            folder = folder / IMAGES
            entries = [entry for entry in _scan(folder) if entry.name not in SYSTEM_FILES]
        if inner := [entry.name for entry in entries if entry.is_dir()]:
            raise InputError(f"{folder}: {abbreviate(inner[0])} is a folder; move its images into {folder}, or remove it")
        images = [entry for entry in entries if _is_image(entry)]
        if not images:
            raise InputError(f"{folder} has no images ({' '.join(EXTENSIONS)}); add some or remove the folder")
        skipped += [(_kind(entry), entry.path) for entry in entries if not _is_image(entry)]
        for entry in images:
            files.add(entry, label)
    return files


def _kind(entry: os.DirEntry[str]) -> str:
    """Describe a file that is no image."""
    if not Path(entry).exists():
        return "broken link" if entry.is_symlink() else "missing"
    if not entry.is_file():
        return "no regular file"
    suffix = Path(entry).suffix.lower()
    return abbreviate(suffix) if suffix.isprintable() and suffix else "without a known ending"


def _list_annotated(folder: Path, classes: tuple[str, ...]) -> ImageFiles:
    """List the images of Tiny ImageNet's validation set, whose classes are in the second column of a table."""
    path = folder / ANNOTATIONS
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__})") from error
    if short := [number for number, row in enumerate(rows, 1) if len(row) < 2]:
        raise InputError(f"{path}: line {short[0]} has no class; expected a file, a tab and a class")
    names = {row[0]: unicodedata.normalize("NFC", row[1].strip()) for row in rows}
    if len(names) < len(rows):
        raise InputError(f"{path} lists an image twice")
    images = {entry.name: entry for entry in _scan(folder / IMAGES) if _is_image(entry)}
    if different := sorted(images.keys() ^ names.keys()):
        present, absent = (folder / IMAGES, path) if different[0] in images else (path, folder / IMAGES)
        raise InputError(f"{abbreviate(different[0])} is in {present} but not in {absent}; both need the same images")
    if unmatched := sorted(set(classes) ^ {*names.values()}):
        present, absent = (folder.parent / "train", path) if unmatched[0] in classes else (path, folder.parent / "train")
        raise InputError(
            f"class {abbreviate(unmatched[0])!r} is in {present} but not in {absent}; both need the same classes"
        )
    files, labels = ImageFiles(), {name: label for label, name in enumerate(classes)}
    for label, entry in sorted(
        ((labels[names[name]], entry) for name, entry in images.items()), key=lambda p: (p[0], p[1].name)
    ):
        files.add(entry, label)
    return files
