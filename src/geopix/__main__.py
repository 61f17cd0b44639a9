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
  --ckpt_path FILE   the checkpoint to resume (fit) or to use; "last" is the newest of the run folder
  --init_from FILE   fit: start a new training from the weights of a checkpoint
  --print_config     show the merged configuration and stop
  --help             all options of a verb
  --version          print the version

first steps:
  geopix fit --config configs/quickstart.yaml
  geopix test --config configs/quickstart.yaml --ckpt_path last
  geopix fit --model.net.connector.help geopix.connectors.mlp.MLPConnector

exit codes: 0 done, 2 configuration, 3 data, 5 checkpoint; GEOPIX_TRACE=1 shows where a mistake was noticed.
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
