"""Part 1 of the assignment: draw the cyclical learning rate."""

import argparse
from pathlib import Path

from s11_fastai.cli import Parser, command_line, path_flag
from s11_fastai.errors import S11Error
from s11_fastai.streams import say

MOST_ITERATIONS = 5_000_000  # a point each: of more, a picture takes seconds and a gigabyte


def main(argv: list[str] | None = None) -> None:
    """Draw the curve that the flags describe."""
    with command_line(__file__):
        args = parse(argv)
        draw(args.lr_min, args.lr_max, args.step_size, args.cycles, args.out)
        say(f"wrote {args.out}")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="draw_clr.py", description=__doc__)
    add = parser.add_argument
    add("--lr-min", type=float, default=1e-4, help="the lower line (default 0.0001)")
    add("--lr-max", type=float, default=1e-3, help="the upper line (default 0.001)")
    add("--step-size", type=int, default=98, help="iterations between the lines (default 98)")
    add("--cycles", type=int, default=5, help="triangles (default 5)")
    out = Path("clr.png")
    add("--out", type=path_flag, default=out, help=f"a .png or .svg (default {out})")
    return parser.parse_args(argv)


def draw(lr_min: float, lr_max: float, step_size: int, cycles: int, out: Path) -> None:
    """Write the curve to `out`; raises S11Error for values that make no curve."""
    if not 0 <= lr_min < lr_max < float("inf"):
        raise S11Error(f"--lr-min {lr_min:g} must be 0 or more and below --lr-max {lr_max:g}")
    if step_size < 1 or cycles < 1:
        raise S11Error("--step-size and --cycles must be 1 or more")
    if 2 * step_size * cycles > MOST_ITERATIONS:
        raise S11Error(
            f"--step-size and --cycles make more than {MOST_ITERATIONS:,} iterations: give fewer"
        )
    if out.suffix.lower() not in (".png", ".svg"):
        raise S11Error(f"--out {out} must end in .png or .svg")
    from s11_fastai.plots import encoded, plot_clr
    from s11_fastai.storage import write_atomically

    write_atomically(out, encoded(plot_clr(lr_min, lr_max, step_size, cycles), out))


if __name__ == "__main__":
    main()
