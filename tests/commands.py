"""The command line as a test calls it: in this process, with what it printed."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import torch

from geopix.__main__ import run

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "tiny.yaml"


@dataclass
class Said:
    code: int
    out: str
    err: str


def geopix(*args: object) -> Said:
    """Run ``geopix`` with these words."""
    out, err = io.StringIO(), io.StringIO()
    torch.use_deterministic_algorithms(False)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: object = run([str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code
    return Said(int(code or 0), out.getvalue(), err.getvalue())


def tiny(verb: str, folder: Path, *args: object) -> Said:
    """A verb on the tiny configuration in a run folder, which must succeed."""
    said = geopix(verb, "--config", TINY, "--trainer.default_root_dir", folder, *args)
    assert said.code == 0, said.err
    return said


def message(*args: object, code: int = 2) -> str:
    """The one message of a command that must be refused."""
    said = geopix(*args)
    assert said.code == code, said.err or said.out
    lines = said.err.strip().splitlines()
    assert lines[0].startswith("geopix: "), said.err
    assert len(lines) <= 14, said.err
    assert "usage:" not in said.err
    assert "Traceback" not in said.err
    return said.err
