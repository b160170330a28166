"""What there is to run: `python -m tfcq`."""

import sys

COMMANDS = {
    "tfcq.train": "pre-trains a backbone without labels",
    "tfcq.evaluate": "scores a backbone or classifier at many bit-widths",
    "tfcq.export": "converts to int8 LiteRT and checks it",
    "tfcq.report": "puts runs side by side on one page",
}


def main() -> int:
    """Prints the commands; returns 2 when something else was asked for."""
    received = [argument for argument in sys.argv[1:] if argument not in ("--help", "-h")]
    if received:
        print(
            f"error: Unknown argument {received[0]!r}; allowed: python -m {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        return 2
    for name, text in COMMANDS.items():
        print(f"python -m {name:<14} {text}; --help lists its flags")
    return 0


if __name__ == "__main__":
    sys.exit(main())
