"""Plot activations with their first and second derivatives (Figure 1 of the Mish paper), PNG and SVG."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from detector.commands import cli
from detector.errors import UserError
from detector.nn import ACTIVATIONS, compute_curves

SHOWN = ("mish", "swish", "gelu", "softplus", "relu", "leaky_relu")
TITLES = ("value", "first derivative", "second derivative")


def main() -> None:
    parser = cli.make_parser(__doc__ or "", "python tools/plot_activations.py mish swish relu")
    parser.add_argument("names", nargs="*", help=f"all, or names; default: {' '.join(SHOWN)}")
    parser.add_argument(
        "--from", dest="low", type=float, default=-6.0, help="left end (default -6)"
    )
    parser.add_argument("--to", dest="high", type=float, default=4.0, help="right end (default 4)")
    parser.add_argument("--out", default="runs/activations", help="path without .png or .svg")
    args = parser.parse_args()
    if args.low >= args.high:
        raise UserError(f"--from {args.low:g} --to {args.high:g}: expected a range")
    names = args.names or list(SHOWN)
    if names == ["all"]:  # each once, by its first name
        names = list({ACTIVATIONS[name]: name for name in reversed(list(ACTIVATIONS))}.values())[
            ::-1
        ]
    x = torch.linspace(args.low, args.high, 2001, dtype=torch.float64)
    figure = Figure(figsize=(15, 5), layout="constrained")
    panels = figure.subplots(1, 3)
    for number, name in enumerate(names):
        style = ("-", "--", ":")[number // 10 % 3]  # matplotlib has ten colours
        for panel, values in zip(panels, compute_curves(name, x), strict=True):
            panel.plot(x.numpy(), values.numpy(), style, label=name, linewidth=1.6)
    for panel, title in zip(panels, TITLES, strict=True):
        panel.set_title(title)
        panel.set_xlabel("x")
        panel.grid(alpha=0.3)
        panel.axhline(0, color="black", linewidth=0.6)
        panel.axvline(0, color="black", linewidth=0.6)
    panels[0].legend(ncols=1 + len(names) // 10, fontsize=9)
    base = Path(args.out)
    base.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        figure.savefig(base.with_name(base.name + suffix), dpi=120)
    print(f"drawn: {base}.png, {base}.svg")


if __name__ == "__main__":
    cli.run(main)
