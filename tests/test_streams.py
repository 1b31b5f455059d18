import io
import os
import subprocess
import sys

import pytest
from helpers import ROOT

from s11_fastai.streams import lasting_streams

PRINT = (
    "import os, sys\n"
    "from s11_fastai.streams import lasting_streams\n"
    "with lasting_streams():\n"
    "    for i in range(10_000): print('line', i, flush=i % 2 == 0)\n"
    "    print('said', file=sys.stderr)\n"
    "    os.write(int(sys.argv[1]), b'at the end')\n"
)


def printed(report: int, **streams) -> int:
    """The exit code of a process that prints much, and then writes to `report`."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRINT, str(report)], cwd=ROOT, pass_fds=[report], **streams
    )
    return process.wait(timeout=60)


@pytest.fixture
def report():
    """What a process writes to the first comes out of the second."""
    out, into = os.pipe()
    yield into, lambda: os.read(out, 100)
    os.close(out)
    os.close(into)


def broken_pipe() -> int:
    out, into = os.pipe()
    os.close(out)
    return into


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are handed on by POSIX alone")
@pytest.mark.parametrize("broken", [broken_pipe, lambda: os.open("/dev/full", os.O_WRONLY)])
def test_a_reader_that_is_gone_and_a_full_disk_end_nothing(report, broken):
    stream = broken()
    assert printed(report[0], stdout=stream, stderr=stream) == 0
    os.close(stream)
    assert report[1]() == b"at the end"


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are closed by POSIX alone")
def test_streams_that_were_closed_before_the_start_end_nothing(report):
    def close():
        os.close(1)
        os.close(2)

    assert printed(report[0], preexec_fn=close) == 0
    assert report[1]() == b"at the end"


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path):
    code = (
        "import os, sys\n"
        "from s11_fastai.streams import lasting_streams\n"
        "with lasting_streams(), open(sys.argv[1], 'w') as file:\n"
        "    assert file.fileno() > 2, file.fileno()\n"
        "    os.write(2, b'for a terminal')"
    )
    file = tmp_path / "file"
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], cwd=ROOT, preexec_fn=lambda: os.closerange(0, 3)
    )
    assert done.returncode == 0
    assert file.read_text() == ""


def test_a_letter_that_the_encoding_lacks_is_shown_as_an_escape(monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(bytes_, encoding="ascii"))
    with lasting_streams():
        print("猫", flush=True)
    assert bytes_.getvalue() == rb"\u732b" + os.linesep.encode()


def test_afterwards_the_streams_are_what_they_were():
    before = sys.stdout, sys.stderr
    with lasting_streams():
        assert sys.stdout is not before[0]
        assert sys.stdout.isatty() == before[0].isatty()
    assert (sys.stdout, sys.stderr) == before
