"""Whether the folder of a run that is over holds all that it should."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from s11_fastai.errors import S11Error
from s11_fastai.runs.records import Records, read_records
from s11_fastai.runs.schema import WAY_BACK
from s11_fastai.storage import Damaged, read_tensors

Which = Literal["final", "best"]
WEIGHTS: dict[Which, str] = {"final": "model.safetensors", "best": "best.safetensors"}


def read_all(path: Path) -> tuple[Records, dict[str, Tensor], dict[str, Tensor]]:
    """The records of a run that is over, its final weights, and those of its best epoch.

    Pictures and page follow from them and are not looked at. Raises S11Error where something is
    missing or damaged.
    """
    records = read_records(path)
    over, of = len(records.history), records.settings.epochs
    if over != of or not records.steps:
        raise S11Error(f"{path}: its tables hold {over} of {of} epochs: {WAY_BACK}")
    final, best = (_read_weights(path, name) for name in WEIGHTS.values())
    return records, final, best


def _read_weights(path: Path, name: str) -> dict[str, Tensor]:
    try:
        return read_tensors(path / name)[0]
    except FileNotFoundError:
        raise S11Error(f"{path / name} is missing: {WAY_BACK}") from None
    except Damaged as error:
        raise S11Error(f"{path}: {error}: {WAY_BACK}") from error
