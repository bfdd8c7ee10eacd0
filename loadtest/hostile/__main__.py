"""`python -m loadtest.hostile`: knock at every door with what nobody should send."""

import argparse
import json
import secrets
import sys

from loadtest.hostile.checker import Limits
from loadtest.hostile.doors import DOORS
from loadtest.hostile.report import as_json, as_text
from loadtest.hostile.runner import play
from router.loops import run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.hostile", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many")
    parser.add_argument("--seed", type=int, help="of what is sent; default: drawn")
    parser.add_argument("--seconds", type=float, default=86_400.0, help="after which it ends")
    parser.add_argument("--doors", default=",".join(DOORS), help="separated by commas")
    parser.add_argument("--kinds", default="", help="of input, separated by commas; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def main() -> int:
    """0 if nothing was found."""
    options = _parser().parse_args()
    doors = tuple(options.doors.split(","))
    kinds = tuple(filter(None, options.kinds.split(",")))
    if unknown := set(doors) - set(DOORS):
        _parser().error(f"there is no door {sorted(unknown)[0]!r}; there are {', '.join(DOORS)}")
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    played = run(play(seed, options.inputs, options.seconds, doors, kinds))
    limits = Limits()
    text = json.dumps(as_json(played, limits)) if options.json else as_text(played, limits)
    print(text)
    return 1 if played.findings(limits) else 0


if __name__ == "__main__":
    sys.exit(main())
