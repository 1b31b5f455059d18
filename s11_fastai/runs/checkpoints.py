"""The folder with a run's last two checkpoints."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from s11_fastai.errors import S11Error
from s11_fastai.storage import Damaged, read_sealed, write_sealed

FORMAT = "s11-checkpoint-1"


class CheckpointFolder:
    """Writes checkpoints, keeps the last two, and finds the newest that is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.good: list[str] = []

    def write(self, epoch: int, batch: int, tensors: Mapping[str, Tensor], values: Mapping) -> None:
        """Write a checkpoint of the position after `batch` batches of `epoch`; raises OSError."""
        name = f"epoch-{epoch:06d}-batch-{batch:06d}.safetensors"
        write_sealed(self.path / name, tensors, {"format": FORMAT, **values})
        self.good = [*[kept for kept in self.good if kept != name][-1:], name]
        for file in self._files():
            if file.name not in self.good:
                file.unlink(missing_ok=True)

    def newest(self) -> tuple[dict[str, Tensor], dict, list[str]] | None:
        """Tensors, values, and a word on each newer file that is damaged; None without any file.

        Raises S11Error where no file is whole, or the newest that is has another format.
        """
        damaged, files = [], self._files()
        while files:
            file = files[-1]
            try:
                tensors, values = read_sealed(file)
            except Damaged as error:
                damaged.append(str(error))
                files.pop()
                continue
            found = values.get("format") if isinstance(values, dict) else None
            if found != FORMAT:
                raise S11Error(
                    f"{file} has format {found!r}, and this version reads {FORMAT!r}: go on with "
                    "the version that began the run, or choose another --out"
                )
            self.good = [kept.name for kept in files[-2:]]
            # Copies, so that nothing hangs on the file any more.
            return {name: tensor.clone() for name, tensor in tensors.items()}, values, damaged
        if damaged:
            raise S11Error(
                f"{self.path} holds no checkpoint that can be read ({'; '.join(damaged)}): "
                "choose another --out to begin again"
            )
        return None

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("epoch-*-batch-*.safetensors"))
