"""Python processes of which only what they print is of interest."""

import os
import subprocess
import sys

from s11_fastai.errors import S11Error


def output_of(*words: object, **variables: object) -> str:
    """What Python prints, called with these words and with these variables in its environment."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        why = done.stderr.strip() or f"exit code {done.returncode}"
        raise S11Error(f"a process that was to be measured failed: {why.splitlines()[-1]}")
    return done.stdout
