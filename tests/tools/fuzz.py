"""Feed damaged bytes to everything that reads files, in one process.

    python -m tests.tools.fuzz 2000 --seed 0
    python -m tests.tools.fuzz 2000 --seed 0 --by-field

Each input must end in an S11Error of one line, in a right result, or, for image files, in what the
image library accepts; and no other file may have changed. With --by-field, the files are those of a
run, and what is wrong is the value of one field. Exits with 1 at the first that does not end so.
"""

import argparse
import json
import os
import pickle
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import fields

from s11_fastai import load_images, sources
from s11_fastai.callbacks.progress import summary
from s11_fastai.errors import S11Error
from s11_fastai.report.page import write_page
from s11_fastai.runs.checkpoints import Checkpoints
from s11_fastai.runs.records import read_records, results_or_none
from s11_fastai.runs.settings import Settings, read_config
from s11_fastai.sources import ImageSet, cache, cifar_batches, fingerprint
from s11_fastai.sources.imageset import SIDE
from s11_fastai.sources.picture import read_picture
from s11_fastai.storage import Damaged, Folder, read_tensors, write_tensors

# A target takes the damaged file's path and says how it ended; an AssertionError is a finding.
Target = Callable[[Path], str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.tools.fuzz", description=__doc__)
    parser.add_argument("inputs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by-field", action="store_true", help="wrong fields of a run's files")
    args = parser.parse_args()
    watch, used = fields.Watch(), peak_memory()
    with tempfile.TemporaryDirectory(prefix="s11-fuzz-") as name:
        fuzz_all = fields.fuzz_fields if args.by_field else fuzz
        ends = fuzz_all(Path(name), args.inputs, args.seed, watch=watch)
    for (target, end), n in sorted(ends.items()):
        print(f"{target:>17}  {end:<16} {n:5}")
    print(
        f"{ends.total()} inputs, nothing found, each in {watch.slowest:.1f} s or less, "
        f"at most {peak_memory() - used} MB above the start"
    )
    return 0


def peak_memory() -> int:
    """The most memory that this process has used so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def fuzz(top: Path, inputs: int, seed: int, watch: fields.Watch | None = None) -> Counter:
    """How many inputs of each target ended how; `watch` has the slowest one's time."""
    watch = watch or fields.Watch()
    rng, ends = random.Random(seed), Counter()
    sources.fastai_folder = lambda folder: top / "home" / folder
    targets = make_targets(top / "files")
    for i in range(inputs):
        file, target = targets[list(targets)[i % len(targets)]]
        whole = file.read_bytes()
        damaged = damage(whole, rng)
        file.write_bytes(damaged)
        before = contents(top / "files")
        try:
            with watch.one():
                end = target(file)
        except S11Error as error:
            end = one_line(error)
        except BaseException:
            kept = Path(tempfile.gettempdir()) / f"found-{file.name}"
            kept.write_bytes(damaged)
            print(f"FOUND with input {i} of seed {seed}, kept as {kept}", file=sys.stderr)
            raise
        assert contents(top / "files") == before, f"input {i} changed files"
        assert {place.name for place in top.iterdir()} <= {"files", "home"}
        ends[list(targets)[i % len(targets)], end] += 1
        file.write_bytes(whole)
        shutil.rmtree(top / "home", ignore_errors=True)
    return ends


def one_line(error: S11Error) -> str:
    assert "\n" not in str(error), error
    return "plain error"


def contents(top: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in top.rglob("*") if file.is_file()}


def damage(data: bytes, rng: random.Random) -> bytes:
    """The bytes with something changed, lost, repeated or added."""
    data, at = bytearray(data), rng.randrange(len(data) or 1)
    # Half of the damage falls on the beginning, where headers are.
    at = at % 600 if rng.random() < 0.5 else at
    length = rng.choice([1, 4, 37, 512])
    kind = max(0, rng.randrange(-4, 7))  # every other time it is a few bits
    if kind == 0:
        for _ in range(rng.choice([1, 1, 1, 8])):
            data[(at + rng.randrange(64)) % len(data)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = data[at : at + length]
    elif kind == 4:
        data[at : at + length] = rng.randbytes(length)
    elif kind == 5:
        data[at : at + length] = bytes([rng.choice([0, 255])]) * length
    else:
        data[at:at] = rng.choice(
            [b"\0", b"\xff" * 8, b'"', b"NaN", b"[" * 5000, b"r\xff\xff\xff\xff"]
        )
    return bytes(data)


def make_targets(top: Path) -> dict[str, tuple[Path, Target]]:
    """A sound file for each kind of reader, and the reader."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    pets, flat = top / "pets", top / "cifar-10-batches-py"
    for i, pixels in enumerate(pictures):
        path = pets / ("train", "test")[i % 2] / ("cat", "dog")[i // 2 % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    Image.fromarray(pictures[0]).save(top / "one.png")
    Image.fromarray(pictures[0]).save(top / "one.jpg")
    flat.mkdir()
    for name in cifar_batches.CIFAR10.md5:
        value = {b"data": pictures.reshape(12, -1), b"labels": [i % 2 for i in range(12)]}
        value = {b"label_names": [b"cat", b"dog"]} if name == "batches.meta" else value
        (flat / name).write_bytes(pickle.dumps(value, protocol=2))
    archives = {
        "packed": Path(shutil.make_archive(str(top / "packed"), "gztar", pets)),
        "plain": Path(shutil.make_archive(str(top / "plain"), "tar", pets)),
        "zip": Path(shutil.make_archive(str(top / "packed"), "zip", pets)),
        "xz": Path(shutil.make_archive(str(top / "packed"), "xztar", pets)),
    }
    whole = load_images(pets)
    cache.write_cache(top / "key.safetensors", "key", whole, ("", 32))
    run = make_run(top / "run")
    return {
        "tar.gz": (archives["packed"], same_images(whole)),
        "tar": (archives["plain"], lambda file: sound_images(load_images(file))),
        "zip": (archives["zip"], lambda file: sound_images(load_images(file))),
        "tar.xz": (archives["xz"], same_images(whole)),
        "folder": (pets / "train/cat/0.png", lambda _: sound_images(load_images(pets))),
        "png": (top / "one.png", one_image),
        "jpeg": (top / "one.jpg", one_image),
        "batches": (flat / "data_batch_2", lambda _: sound_images(load_images(flat))),
        "meta": (flat / "batches.meta", lambda _: sound_images(load_images(flat))),
        "cache": (top / "key.safetensors", cached_images(whole)),
        "checkpoint": (run / "checkpoint/epoch-000002-batch-000000.safetensors", a_checkpoint),
        "weights": (run / "model.safetensors", weights),
        "config": (run / "config.json", a_config),
        "results": (run / "results.json", results),
        **{name: (table, sound_records) for name, table in records_in(top / "whole").items()},
    }


def records_in(run: Path) -> dict[str, Path]:
    """The records of a whole run that are read together, by their names."""
    fields.make_run(run)
    names = ("env.json", "lr_bounds.json", "history.csv", "steps.csv")
    return {name.split(".")[0]: run / name for name in names}


def make_run(run: Path) -> Path:
    folder = Checkpoints(run / "checkpoint")
    for epoch in (1, 2):
        folder.write({"epoch": epoch, "batch": 0, "x": torch.full((50,), epoch)})
    write_tensors(run / "model.safetensors", {"x": torch.arange(50.0)})
    (run / "config.json").write_text(json.dumps(Settings().as_dict(), indent=2))
    figures = {"params": 10, "final_accuracy": 0.5, "best_accuracy": 0.5, "best_epoch": 1}
    figures |= {"data": "digits", "evaluated_on": "test"}
    (run / "results.json").write_text(json.dumps(figures))
    return run


def sound_images(images: ImageSet) -> str:
    """The file holds what it says it holds, and the fingerprint is that of the pixels."""
    for part in (images.train, images.valid):
        assert part.images.dtype == np.uint8
        assert part.images.shape == (len(part.labels), 32, 32, 3)
        assert 0 <= part.labels.min() <= part.labels.max() < len(images.classes)
    assert images.fingerprint == fingerprint(images.classes, images.train, images.valid)
    return "sound images"


def same_images(whole: ImageSet) -> Target:
    def load(file: Path) -> str:
        assert load_images(file).fingerprint == whole.fingerprint
        return "the same"

    return load


def cached_images(whole: ImageSet) -> Target:
    def read(file: Path) -> str:
        shutil.copytree(file.parent, file.parent.parent / "copy")
        try:
            images = cache.cached(file.parent.parent / "copy", "key", lambda: whole)
        finally:
            shutil.rmtree(file.parent.parent / "copy")
        assert images.name == whole.name
        assert images.fingerprint == whole.fingerprint
        sound_images(images)
        return "the same"

    return read


def one_image(file: Path) -> str:
    pixels = read_picture(file, (SIDE, SIDE))
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    return "an image"


def a_checkpoint(file: Path) -> str:
    folder = Checkpoints(file.parent)
    state = folder.newest()
    assert state is not None
    assert torch.equal(state["x"], torch.full((50,), state["epoch"]))
    assert state["epoch"] == (1 if folder.damaged else 2)
    return "the one before" if folder.damaged else "the same"


def weights(file: Path) -> str:
    try:
        tensors, _ = read_tensors(file)
    except Damaged:
        return "damaged"
    assert torch.equal(tensors["x"], torch.arange(50.0))
    return "the same"


def a_config(file: Path) -> str:
    settings = read_config(file.parent)
    if settings == Settings():
        return "the same"
    return "differs" if Settings().differences(settings.as_dict()) else "moved"


def results(file: Path) -> str:
    found = results_or_none(file.parent)
    assert not found or summary(found)
    return "results" if found else "not finished"


def sound_records(file: Path) -> str:
    """Whatever is not refused can be shown, and stays within what a run can have."""
    records = read_records(file.parent)
    page = write_page(Folder(file.parent), records, "stopped")
    assert "The page could not be made" not in page.read_text()
    page.unlink()
    for row in records.history:
        assert 0 <= row.valid_accuracy <= 1
        assert row.lr > 0
        assert row.seconds >= 0
    return "sound records"


if __name__ == "__main__":
    sys.exit(main())
