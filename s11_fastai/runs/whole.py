"""Whether the folder of a run that is over holds all that it should, and its weights."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from s11_fastai.errors import S11Error
from s11_fastai.runs.records import WAY_BACK, Records, read_records
from s11_fastai.storage import Damaged, read_tensors

Which = Literal["final", "best"]
WEIGHTS: dict[Which, str] = {"final": "model.safetensors", "best": "best.safetensors"}


def weights_in(path: Path, which: Which) -> dict[str, Tensor] | None:
    """The weights in the folder of a run, None where there is no file of them.

    Raises S11Error where the file is damaged.
    """
    file = path / WEIGHTS[which]
    if not file.exists():
        return None
    try:
        return {name: value.clone() for name, value in read_tensors(file)[0].items()}
    except Damaged as error:
        raise S11Error(f"{path}: {error}; {WAY_BACK}") from error


def read_whole(path: Path) -> tuple[Records, dict[str, Tensor], dict[str, Tensor]]:
    """The records of a run that is over, its final weights, and those of its best epoch.

    Pictures and page follow from them and are not looked at. Raises S11Error where one is missing
    or damaged.
    """
    records = read_records(path)
    over, of = len(records.history), records.settings.epochs
    if over != of:
        raise S11Error(f"{path}: its tables hold {over} of {of} epochs; {WAY_BACK}")
    final, best = (weights_in(path, which) for which in WEIGHTS)
    if final is None or best is None:
        missing = WEIGHTS["best" if final else "final"]
        raise S11Error(f"{path}: {missing} is missing; {WAY_BACK}")
    return records, final, best
