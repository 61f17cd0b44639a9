"""What tests of sweeps share: a program that stands for geopix in the trials, and a parser that reads what differs in seeds alone once."""

import contextlib
import csv
import functools
import io
import re
import sys
from pathlib import Path

import geopix.cli
import geopix.sweep.check
from geopix.sweep.command import main
from tests.commands import ROOT, TINY, Said

STUB = [sys.executable, str(ROOT / "tests" / "sweep_trial.py")]
MEMORY = ("--vary", "model.net.memory", "null", "geopix.memory.classwise.ClasswiseMemory")
SEEDS = ("--vary", "seed_everything", "0", "1", "2")


@functools.cache
def _parsed(words: tuple[str, ...], folder: str) -> Said:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = geopix.cli.main(list(words))
    return Said(code, out.getvalue(), err.getvalue())


def _main(words: list[str]) -> int:
    """``geopix fit --print_config``, which takes half a second, once for all seeds."""
    seed = words[words.index("--seed_everything") + 1] if "--seed_everything" in words else None
    rest = [word for word, before in zip(words, ["", *words], strict=False) if "--seed_everything" not in (word, before)]
    said = _parsed(tuple(rest if seed else words), str(Path.cwd()))
    print(re.sub(r"^seed_everything: .*$", f"seed_everything: {seed}", said.out, flags=re.MULTILINE) if seed else said.out, end="")
    print(said.err, end="", file=sys.stderr)
    return said.code


def sweep(*args: object, code: int = 0, program: list[str] = STUB) -> Said:
    """A sweep whose trials take no time."""
    out, err, before = io.StringIO(), io.StringIO(), geopix.sweep.check.main
    geopix.sweep.check.main = _main
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            ended = main([str(arg) for arg in args], program)
    finally:
        geopix.sweep.check.main = before
    assert ended == code, err.getvalue() or out.getvalue()
    return Said(ended, out.getvalue(), err.getvalue())


def small(folder: Path, *args: object, code: int = 0) -> Said:
    """Three trials that differ in their seeds."""
    return sweep("--config", TINY, *SEEDS, "--output", folder, *args, code=code)


def refused(*args: object) -> str:
    """The message of a sweep that is refused."""
    said = sweep(*args, code=2)
    assert said.err.startswith("geopix: ")
    assert "Traceback" not in said.err
    return said.err


def calls(folder: Path) -> list[str]:
    """The commands that were run, with the trials that ran them."""
    path = folder / "calls.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
