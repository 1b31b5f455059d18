"""A folder with the last two checkpoints of a fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s11_fastai.errors import S11Error
from s11_fastai.runs.schema import shown
from s11_fastai.storage import Damaged, pack, read_tensors, unpack, write_tensors

FORMAT = "s11-checkpoint-2"


class Checkpoints:
    """Writes states, keeps the last two, and finds the newest that is whole.

    A state is nested dicts and lists of tensors and plain values; its "epoch" and "batch" name
    its file. `damaged` has a word on each file that `newest` passed over.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.good: list[str] = []
        self.damaged: list[str] = []

    def write(self, state: Mapping[str, Any]) -> None:
        """Write a state and let all but the last one before it go. Raises OSError."""
        name = f"epoch-{state['epoch']:06d}-batch-{state['batch']:06d}.safetensors"
        tensors, values = pack(state)
        write_tensors(self.path / name, tensors, {"format": FORMAT, "state": values})
        self.good = [*[kept for kept in self.good if kept != name][-1:], name]
        for file in self._files():
            if file.name not in self.good:
                file.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """The newest state that is whole, or None where there is no file.

        Raises S11Error where no file is whole, or the newest that is has another format.
        """
        self.damaged, files = [], self._files()
        while files:
            try:
                tensors, values = read_tensors(files[-1])
            except Damaged as error:
                self.damaged.append(str(error))
                files.pop()
                continue
            self.good = [kept.name for kept in files[-2:]]
            return self._state(files[-1], tensors, values)
        if self.damaged:
            raise S11Error(
                f"{self.path} holds no checkpoint that can be read ({'; '.join(self.damaged)}): "
                "choose another folder to begin again"
            )
        return None

    def _state(self, file: Path, tensors: dict, values: Any) -> dict[str, Any]:
        found = values.get("format") if isinstance(values, dict) else None
        if found != FORMAT:
            raise S11Error(
                f"{file} has format {shown(found)}, and this version reads {FORMAT!r}: go on with "
                "the version that began the run, or choose another folder"
            )
        try:
            return dict(unpack(tensors, values["state"]))
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise S11Error(
                f"{file} is no checkpoint of a fit ({type(error).__name__}): choose another folder"
            ) from error

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("epoch-*-batch-*.safetensors"))
