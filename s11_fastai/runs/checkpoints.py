"""A folder with the last two checkpoints of a fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s11_fastai.errors import S11Error
from s11_fastai.runs.schema import shown
from s11_fastai.storage import Damaged, Folder, pack, read_tensors, unpack

FORMAT = "s11-checkpoint-4"


class Checkpoints:
    """Writes states, keeps the last two, and finds the newest that is whole.

    A state is nested dicts and lists of tensors and plain values; its "epoch" and "batch" name
    its file. `damaged` has a word on each file that `newest` passed over.
    """

    def __init__(self, path: str | Path | Folder) -> None:
        self.folder = path if isinstance(path, Folder) else Folder(path)
        self.path = self.folder.path
        self.good: list[str] = []
        self.damaged: list[str] = []

    def write(self, state: Mapping[str, Any]) -> None:
        """Write a state and let all but the last one before it go. Raises OSError.

        One that stands for a later place in a fit is of another fit, which is over: it goes too.
        """
        name = f"epoch-{state['epoch']:06d}-batch-{state['batch']:06d}.safetensors"
        tensors, values = pack(state)
        self.folder.write_tensors(name, tensors, {"format": FORMAT, "state": values})
        self.good = [*[kept for kept in self.good if kept < name][-1:], name]
        self.folder.remove(*(old for old in self.names() if old not in self.good))

    def remove(self) -> None:
        """Let all of them go, and their folder where nothing else is in it. Raises OSError."""
        self.good = []
        if self.path.exists():
            self.folder.remove(*self.names())
            self.folder.remove_if_empty()

    def newest(self) -> dict[str, Any] | None:
        """The newest state that is whole, or None where there is no file.

        Raises S11Error where no file is whole, or the newest that is has another format.
        """
        self.folder.check()  # what cannot be written to need not be read
        self.damaged, names = [], self.names()
        while names:
            try:
                tensors, values = read_tensors(self.path / names[-1])
            except (Damaged, OSError) as error:
                self.damaged.append(str(error))
                names.pop()
                continue
            self.good = names[-2:]
            return self._state(self.path / names[-1], tensors, values)
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

    def names(self) -> list[str]:
        """Those of all files, from the oldest to the newest."""
        return sorted(file.name for file in self.path.glob("epoch-*-batch-*.safetensors"))
