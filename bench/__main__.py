"""Run every measurement, or those that are named: `python -m bench [NAME ...]`.

A measurement is a module of this package with a main() that prints what it measured.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

import bench
from tts.errors import InputError


def names() -> list[str]:
    """The measurements there are."""
    return sorted(module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_"))


def main(arguments: list[str] | None = None) -> None:
    """Run the measurements that the arguments name, all of them if none is named."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure speed on this machine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())} (default: all)")
    chosen = parser.parse_args(arguments).names or names()
    if unknown := [name for name in chosen if name not in names()]:
        raise InputError(f"bench: there is no measurement {unknown[0]!r}: choose from {', '.join(names())}")
    for name in chosen:
        print(f"== {name}", flush=True)
        importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
