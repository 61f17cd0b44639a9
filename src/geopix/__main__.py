"""Entry point: answers a bare ``--help`` and ``--version`` at once, and imports the rest only when there is work."""

from __future__ import annotations

import sys

from geopix import __version__

HELP = """usage: geopix VERB [options]

geopix trains, tests and uses models that talk about an overhead image and draw on it.

verbs:
  fit        train a model in the stages of its curriculum
  validate   score a checkpoint on the validation set
  test       score a checkpoint on the test set or on benchmarks, by its own free answers: numbers, intervals, every sample, a report
  compare    tests of the same data side by side, with the intervals of their differences: geopix compare RUN RUN
  score      masks and answers of any program on a benchmark, by the same rules: geopix score FILE --benchmark NAME
  predict    answer questions about your images: pictures, JSONL and GeoTIFF masks
  sweep      trainings with every combination of some options, and one table of their tests: geopix sweep --help
  list       parts and configurations that there are: geopix list [family]
  show       one part, with its options and what it takes: geopix show NAME
  data       check, convert, divide, show and make records of your images: geopix data --help
  config     the merged configuration, with where each value comes from: geopix config FILE [options]

options of fit, validate, test and predict:
  --config FILE      a YAML of configs/; several are merged, later ones win
  --ckpt_path FILE   the checkpoint to resume (fit) or to use; "last" is the newest of the run folder
  --init_from FILE   fit: start a new training from the weights of a checkpoint
  --print_config     show the merged configuration and stop
  --help             all options of a verb; --version prints the version

first steps:
  geopix fit --config configs/quickstart.yaml
  geopix test --config configs/quickstart.yaml --ckpt_path last
  geopix list connector
  geopix fit --config configs/quickstart.yaml --model.net.connector configs/connector/resampler.yaml

exit codes: 0 done, 2 configuration, 3 data, 5 checkpoint; GEOPIX_TRACE=1 shows where a mistake was noticed.
"""

HELP_OF = {
    "list": """usage: geopix list [encoder | connector | llm | decoder | memory | config ...] [--markdown]

The parts of one family or of all, each with its module, what it is, and the files of ./configs that set it up.
config: the files of ./configs. --markdown: the page docs/zoo.md.
""",
    "show": """usage: geopix show NAME

All about one part: its manual, contract, options with types and defaults, parameters, sources and presets. Nothing is downloaded.
NAME is a class (MLPConnector), an import path (mine.MeanConnector) or the file of a part (configs/llm/embedded.yaml).
""",
    "config": """usage: geopix config FILE [FILE ...] [options of geopix fit]

What geopix fit would run with these files and options, merged, as YAML; behind each value where it comes from:
file and line, command line, or default.
""",
}


def run(args: list[str] | None = None) -> None:
    """The ``geopix`` command."""
    args = sys.argv[1:] if args is None else args
    if not args or args in (["--help"], ["-h"], ["help"]):
        print(HELP, end="")
    elif args == ["--version"]:
        print(f"geopix {__version__}")
    elif args[0] == "data":
        from geopix.cli_data import main as main_data

        sys.exit(main_data(args[1:]))
    elif args[0] == "sweep":
        from geopix.sweep.command import main as main_sweep

        sys.exit(main_sweep(args[1:]))
    elif args[0] in ("score", "compare"):
        from geopix.cli_evaluate import main as main_evaluate

        sys.exit(main_evaluate(args))
    elif args[0] in HELP_OF and args[1:] in (["--help"], ["-h"]):
        print(HELP_OF[args[0]], end="")
    elif args[0] in HELP_OF:
        from geopix.cli_zoo import main as main_zoo

        sys.exit(main_zoo(args))
    else:
        from geopix.cli import main

        sys.exit(main(args))


if __name__ == "__main__":
    run()
