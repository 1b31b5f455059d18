"""Decoded images on disk, one sealed file for each data set, memory-mapped when read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock

from s11_fastai.sources.imageset import ImageSet, Split
from s11_fastai.storage import Damaged, about_in, read_tensors, sweep, write_tensors
from s11_fastai.streams import printable

# Another number too where a layout is read in another way: an archive's key is of its bytes alone.
_FORMAT = "s11-images-6"


def cached(
    folder: Path,
    key: str,
    decode: Callable[[], ImageSet],
    source: Path | None = None,
    side: int = 0,
) -> ImageSet:
    """The ImageSet kept under `key`, or what `decode` gives, kept from then on.

    A file that is damaged, of another format or of another key is made again; where several
    processes want it at once, one makes it and the others wait. The arrays are a private map of
    the file: writing to them changes neither the file nor another process. Where the file cannot be
    written, the images come without, and a note says so.

    A new file takes the place of older ones of the same `source` and `side`, and of those whose
    source is gone.
    """
    path = folder / f"{key}.safetensors"
    images = _read(path, key)
    if images is None:
        with _one_at_a_time(path.with_suffix(".lock")):
            images = _read(path, key) or _made(path, key, decode, (str(source), side))
    return images


Source = tuple[str, int]  # where the images are, and the side they are kept in


def _made(path: Path, key: str, decode: Callable[[], ImageSet], source: Source) -> ImageSet:
    sweep(path.parent)
    images = decode()
    try:
        write_cache(path, key, images, source)
    except OSError as error:
        why = error.strerror or error
        note = f"decoded at every start, as nothing can be kept in {path.parent} ({why})"
        return replace(images, notes=(*images.notes, printable(note)))
    _remove_others(path, source)
    return _read(path, key) or images


def _remove_others(kept: Path, source: Source) -> None:
    """Remove what no start will read again, where that can be."""
    for path in kept.parent.glob("*.safetensors"):
        with suppress(OSError):  # it is gone by now, or another user's
            if path != kept and _is_old(path, source):
                for each in (path, path.with_suffix(".lock")):
                    each.unlink(missing_ok=True)


def _is_old(path: Path, source: Source) -> bool:
    try:  # what it says of itself may be damaged in any way
        about = about_in(path)
        place, side = about["source"]
        return (place, side) == source or about["format"] != _FORMAT or _is_gone(Path(place))
    except (Damaged, LookupError, TypeError, ValueError):
        return True


def _is_gone(source: Path) -> bool:
    """Whether images are no longer there, rather than on a disk that is not there now."""
    return source.parent.exists() and not source.exists()


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Wait for other processes that hold the lock at `path`, then hold it.

    Where the file system knows no locks, all go on at once: the same work is done twice.
    """
    lock = FileLock(path, fallback_to_soft=False)  # which a process that is killed leaves held
    with suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _read(path: Path, key: str) -> ImageSet | None:
    try:
        arrays, about = read_tensors(path)
    except (OSError, Damaged):
        return None
    if not isinstance(about, dict) or (about.get("format"), about.get("key")) != (_FORMAT, key):
        return None
    train, valid = (
        Split(arrays[f"{part}_images"].numpy(), arrays[f"{part}_labels"].numpy())
        for part in ("train", "valid")
    )
    classes, notes = tuple(about["classes"]), tuple(about["notes"])
    return ImageSet(about["name"], classes, train, valid, about["fingerprint"], notes=notes)


def write_cache(path: Path, key: str, images: ImageSet, source: Source) -> None:
    """Write the images as a whole file, which `key` tells from those of other sources."""
    about = {
        "format": _FORMAT,
        "key": key,
        "source": source,
        "name": images.name,
        "classes": images.classes,
        "fingerprint": images.fingerprint,
        "notes": images.notes,
    }
    arrays = {
        f"{name}_{kind}": torch.from_numpy(getattr(part, kind))
        for name, part in (("train", images.train), ("valid", images.valid))
        for kind in ("images", "labels")
    }
    write_tensors(path, arrays, about)
