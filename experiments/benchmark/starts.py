"""Section "start": whole processes, from nothing to where something is to be seen."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

from benchmark.children import output_of
from benchmark.timing import Row, round_robin, rows_of, seconds_of

# fastai's part that finds its folders is imported before the clock starts, not within it.
_LOAD = """
import sys, time
from fastai.data.external import fastai_path
from s11_fastai import load_images
start = time.perf_counter()
load_images(sys.argv[1])
print(time.perf_counter() - start)
"""
_FIRST_BATCH = """
import sys
from s11_fastai import get_dls, load_images
next(iter(get_dls(load_images(sys.argv[1]), bs=int(sys.argv[2]), device="cpu").train))
"""


def measure_start(data: str, bs: int, rounds: int) -> list[Row]:
    """Seconds of each start; files are decoded into a folder of fastai's that is temporary."""
    script = Path(__file__).parents[1] / "run.py"
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        in_home = partial(output_of, FASTAI_HOME=home)
        sides = {
            "cold": partial(cold_load, data, home),
            "loading the images from the cache": lambda: float(in_home("-c", _LOAD, data)),
            "import, load and the first training batch": partial(
                seconds_of, partial(in_home, "-c", _FIRST_BATCH, data, bs)
            ),
            "run.py --help": partial(seconds_of, partial(in_home, script, "--help")),
        }
        values = round_robin(sides, rounds)
    cold, (warm, *_) = values.pop("cold"), values.values()
    decoding = [a - b for a, b in zip(cold, warm, strict=True)]
    return rows_of("start", "s", {"decoding all files into the cache": decoding} | values)


def cold_load(data: str, home: Path) -> float:
    """The seconds of `load_images` in a process whose cache is empty."""
    shutil.rmtree(home, ignore_errors=True)
    return float(output_of("-c", _LOAD, data, FASTAI_HOME=home))
