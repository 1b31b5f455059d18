"""What the folders of a data set mean: which hold training images, which evaluated ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from unicodedata import normalize

from s11_fastai.errors import S11Error
from s11_fastai.sources.cifar_batches import Batches, batches_in
from s11_fastai.sources.picture import SUFFIXES, is_picture
from s11_fastai.sources.tree import TEST, TRAIN, VALID, Place, Tree, part_of
from s11_fastai.streams import few, printable

# Kaggle's list of labels, lower case.
LABELS = "trainlabels.csv"
_LOOKS = 3  # files of a folder that are opened to see what they are
_FLOORS = 3  # the data lies at the top of what is given, or so many folders below, less one


@dataclass(frozen=True)
class Layout:
    """Where images lie: in the folder `top` of what is given, in the files and folders `names`.

    There they are `batches`, or pictures. Those for training are in a folder of each class in
    `train`, such as "train" or "train/train", which is empty where `top` itself has the folders of
    the classes; or they are all in `train` and the file `labels` tells their classes. Evaluated
    ones are in `test`, in a folder of each class; None where there are none. `notes` tell what was
    taken for what.
    """

    names: frozenset[str]
    train: str = ""
    test: str | None = None
    labels: str = ""
    batches: Batches | None = None
    top: str = ""
    notes: tuple[str, ...] = ()

    @property
    def has_test(self) -> bool:
        return self.batches is not None or self.test is not None


def find_layout(place: Place, where: Path) -> Layout:
    """The layout of what lies at `where`: the uppermost that has parts or batches, or else classes.

    Raises S11Error, with what was found and the ways out, where there is none or not only one.
    """
    floors: list[dict[str, Tree]] = []
    tops = [""]
    for _ in range(_FLOORS):
        trees = {top: place.peek(top) for top in tops}
        floors.append(trees)
        if found := [x for top, tree in trees.items() if (x := _parts(place, tree, top, where))]:
            return _single(found, where)
        tops = [str(PurePosixPath(top, f)) for top, tree in trees.items() for f in _upper(tree)]
    for trees in floors:
        pictured = [top for top, tree in trees.items() if top and _with_pictures(tree)]
        called = [top for top, tree in trees.items() if _called(tree, TRAIN, TEST, VALID)]
        others = {top: tree for top, tree in trees.items() if top not in called}
        if found := [x for top, tree in others.items() if (x := _classes(tree, top, pictured))]:
            return _single(found, where)
        if called:
            raise _without_train(place, trees[called[0]], called[0], where)
    raise _nothing(floors[0][""], where)


def check_test(is_fine: bool, where: Path) -> None:
    """Raise S11Error where there is nothing that could be evaluated."""
    if not is_fine:
        raise S11Error(
            f"{where} has no test/ (nor val/ or valid/) with a folder of images for each class: "
            "add it, or give `holdout`, the number of training images that are evaluated instead"
        )


def _parts(place: Place, tree: Tree, top: str, where: Path) -> Layout | None:
    """The layout of a tree with batches or a part for training at its top."""
    if batches := batches_in(tree):
        return Layout(frozenset(batches.md5), batches=batches, top=top, notes=batches.notes)
    if not (found := _called(tree, TRAIN)):
        return None
    name = _one_of(found, where / top)
    train = _part(place, tree, top, name)
    # Without a list of labels, folders are the classes, whatever lies beside them.
    listed = _with_list(tree, name, top, where)
    if listed and (len(train.classes) < 2 or name in _with_pictures(tree)):
        return listed
    if not train.classes:
        return None
    test = None
    for kind in (TEST, VALID):
        parts = {each: _part(place, tree, top, each) for each in _called(tree, kind)}
        if labelled := [each for each, part in parts.items() if part.has_classes_of(train)]:
            test = parts[_one_of(labelled, where / top)]
            break
    read = [part.folder for part in (train, test) if part]
    names = frozenset(PurePosixPath(folder).parts[0] for folder in read)
    others = [each for each in _called(tree, TEST, VALID) if each not in names]
    notes: tuple[str, ...] = ()
    if others or top.count("/") or read != ["train", "test"]:
        test_part = f"test part {_shown(top, test.folder)}" if test else "no test part"
        notes = _note(f"trained on {_shown(top, train.folder)}", test_part, _unread(others))
    return Layout(names, train.folder, test and test.folder, top=top, notes=notes)


class _Part(NamedTuple):
    """The folder in which a part has its classes, and their names."""

    folder: str
    classes: frozenset[str]

    def has_classes_of(self, train: "_Part") -> bool:
        """Whether its folders mean classes: not one alone that is none of the training part's."""
        return len(self.classes) > 1 or bool(self.classes & train.classes)


def _part(place: Place, tree: Tree, top: str, name: str) -> _Part:
    """The part at the top of `tree`; or in its one folder, where that is what has folders.

    So archives lie that were unpacked into a folder of their own name: train/train/<class>/.
    """
    inside = {PurePosixPath(n).parts[1] for n in tree.folders if n.startswith(f"{name}/")}
    if len(inside) == 1:
        folder = f"{name}/{min(inside)}"
        if deeper := _upper(place.peek(str(PurePosixPath(top, folder)))):
            return _Part(folder, _same_letters(deeper))
    return _Part(name, _same_letters(inside))


def _same_letters(names: Iterable[str]) -> frozenset[str]:
    return frozenset(normalize("NFC", name) for name in names)


def _with_list(tree: Tree, train: str, top: str, where: Path) -> Layout | None:
    """The layout of a tree whose training part has a list of labels beside it."""
    lists = [name for name in sorted(tree.files) if name.lower() == LABELS]
    if not lists:
        return None
    labels = _one_of(lists, where / top)
    notes = _note(
        f"trained on {_shown(top, train)} with the labels of {printable(labels)}",
        "no test part",
        _unread(_called(tree, TEST, VALID)),
    )
    return Layout(frozenset({train, labels}), train, labels=labels, top=top, notes=notes)


def _classes(tree: Tree, top: str, pictured: Sequence[str]) -> Layout | None:
    """The layout of a tree with nothing but folders of classes: such as have images themselves.

    `pictured` are the tops on its floor that have some, too.
    """
    classes = _with_pictures(tree)
    if len(classes) < 2:
        return None
    others = [name for name in _upper(tree) if name not in classes]
    others += [other for other in pictured if other != top]
    found = f"{len(classes):,} folders, each a class" + (f", in {_shown(top, '')}" if top else "")
    notes = _note(found, "no test part", _unread(others))
    return Layout(frozenset(classes), top=top, notes=notes)


def _with_pictures(tree: Tree) -> set[str]:
    """The folders at the tree's top in which pictures lie: files called so, or else one of the
    first without a suffix."""
    inside: dict[str, list[PurePosixPath]] = {name: [] for name in _upper(tree)}
    for path in map(PurePosixPath, sorted(tree.files)):
        if len(path.parts) == 2:
            inside[path.parts[0]].append(path)
    return {name for name, paths in inside.items() if _has_picture(tree, paths)}


def _has_picture(tree: Tree, paths: Sequence[PurePosixPath]) -> bool:
    if any(path.suffix.lower() in SUFFIXES for path in paths):
        return True
    bare = islice((path for path in paths if not path.suffix), _LOOKS)
    return any(is_picture(tree.files[str(path)]) for path in bare)


def _without_train(place: Place, tree: Tree, top: str, where: Path) -> S11Error:
    """What is wrong with a tree that has parts, but none that could be trained on."""
    message = (
        f"{where / top} has no train/ with a folder of images for each class: add it, or Kaggle's "
        "trainLabels.csv for images that lie in train/ itself"
    )
    parts = [_part(place, tree, top, name) for name in _called(tree, TEST, VALID)]
    if labelled := [part.folder for part in parts if len(part.classes) > 1]:
        message += f", or give {where / top / labelled[0]}, which has classes"
    if len(_with_pictures(tree)) > 1:
        message += "; if one of these is a class, put all classes into a folder train/"
    return S11Error(message)


def _nothing(tree: Tree, where: Path) -> S11Error:
    found = [f"{name}/" for name in _upper(tree)]
    found += sorted(name for name in tree.files if "/" not in name)
    shown = f"it holds {few(found)}" if found else "it is empty"
    return S11Error(
        f"{where} holds neither CIFAR's batches nor train/ and test/ with a folder of images for "
        f"each class ({shown}): give the folder that has them, or one with a folder for each of "
        "two or more classes"
    )


def _single(found: Sequence[Layout], where: Path) -> Layout:
    if len(found) > 1:
        tops = few([f"{layout.top}/" for layout in found])
        raise S11Error(f"{where} holds {len(found):,} sets of images, {tops}: give one of them")
    return found[0]


def _one_of(names: Sequence[str], where: Path) -> str:
    if len(names) > 1:
        raise S11Error(f"{where} has {few(names)}, which may mean the same: leave one there")
    return names[0]


def _upper(tree: Tree) -> list[str]:
    """The folders at the tree's top."""
    return sorted(name for name in tree.folders if "/" not in name)


def _called(tree: Tree, *kinds: Sequence[str]) -> list[str]:
    """The folders at the tree's top that are called as each kind; or else so with a word beside."""
    upper, found = _upper(tree), list[str]()
    for names in kinds:
        exact = [name for name in upper if name.lower() in names]
        found += exact or [name for name in upper if part_of(name) in names]
    return found


def _shown(top: str, name: str) -> str:
    return printable(f"{PurePosixPath(top, name)}/")


def _unread(names: Sequence[str]) -> str:
    return f"not read: {few([f'{name}/' for name in names])}" if names else ""


def _note(*words: str) -> tuple[str, ...]:
    """A line on what was taken for what."""
    return ("read as: " + ", ".join(filter(None, words)),)
