"""Entry point: answers a bare ``--help`` and ``--version`` at once, and imports the rest only when there is work."""

from __future__ import annotations

import sys

from geopix import __version__

HELP = """usage: geopix VERB [options]

geopix trains, tests and uses models that talk about an overhead image and draw on it.

verbs:
  fit        train a model in the stages of its curriculum
  validate   score a checkpoint on the validation set
  test       score a checkpoint on the test set, by its own free answers
  predict    answer questions about your images: pictures, JSONL and GeoTIFF masks

options of every verb:
  --config FILE      a YAML of configs/; several are merged, later ones win
  --print_config     show the merged configuration and stop
  --help             all options of a verb
  --version          print the version

first steps:
  geopix fit --config configs/quickstart.yaml
  geopix test --config configs/quickstart.yaml --ckpt_path runs/quickstart/checkpoints/last.ckpt
  geopix fit --model.net.connector.help MLPConnector
"""


def run(args: list[str] | None = None) -> None:
    """The ``geopix`` command."""
    args = sys.argv[1:] if args is None else args
    if not args or args in (["--help"], ["-h"], ["help"]):
        print(HELP, end="")
    elif args == ["--version"]:
        print(f"geopix {__version__}")
    else:
        from geopix.cli import main

        sys.exit(main(args))


if __name__ == "__main__":
    run()
