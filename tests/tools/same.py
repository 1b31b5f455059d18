"""Compare two run folders, to the byte; of the history all columns but the seconds, of env.json all
but the revision of the code, and not the page, which tells the time.

    python -m tests.tools.same runs/before runs/after

Names the files that differ or are in one folder only, and ends with 1 where there is one.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import compare

if __name__ == "__main__":
    different = compare(Path(sys.argv[1]), Path(sys.argv[2]))
    print("\n".join(different) or "the same")
    sys.exit(bool(different))
