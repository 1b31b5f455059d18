"""The published CIFAR-10 archive, fetched once and checked whole before anything reads it."""

import hashlib
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from s11_fastai.errors import S11Error
from s11_fastai.storage import sweep, whole_file

# What torchvision.datasets.CIFAR10 names.
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
_MAX_BYTES = 200_000_000
_CHUNK = 1 << 16


def download(target: Path, url: str = URL, md5: str = MD5, timeout: float = 30.0) -> Path:
    """Fetch `url` to `target` where its MD5 is `md5`; otherwise leave nothing behind.

    `timeout` is in seconds of silence. Raises S11Error without a network, after a time-out, and
    for an archive that is not the one that was asked for.
    """
    sweep(target.parent)
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with whole_file(target) as file:
        for chunk in _chunks(url, timeout):
            digest.update(chunk)
            size += len(chunk)
            if size > _MAX_BYTES:
                raise S11Error(f"{url} gives more than the published archive holds; not kept")
            file.write(chunk)
        if digest.hexdigest() != md5:
            raise S11Error(
                f"{url} gave {size:,} bytes that are not the published archive "
                f"(MD5 {digest.hexdigest()}); nothing was kept, try again"
            )
    return target


def _chunks(url: str, timeout: float) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            size = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=size, desc="CIFAR-10", unit="B", unit_scale=True, disable=None) as bar:
                while chunk := response.read(_CHUNK):
                    yield chunk
                    bar.update(len(chunk))
    except (OSError, ValueError, HTTPException) as error:
        raise S11Error(
            f"CIFAR-10 is not on this computer and {url} cannot be fetched "
            f"({getattr(error, 'reason', error)}): connect to the network, or give `data` "
            "PATH for a copy, or `data` digits"
        ) from error
