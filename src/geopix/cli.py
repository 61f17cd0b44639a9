"""``geopix fit | validate | test | predict``: LightningCLI with rules that keep a user's word.

What the command says wins over what a checkpoint stores; parts of another class are refused; nothing is measured on random weights
unless that is asked for; every mistake is one message.
"""

from __future__ import annotations

import ctypes
import inspect
import logging
import os
import platform
import sys
import traceback
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from geopix.checkpoint import CheckpointError, check_checkpoint, check_resume, differences, last_checkpoint, other_parts, read_checkpoint
from geopix.cli_benchmarks import canvas_of, read_benchmarks, reading_of
from geopix.cli_callbacks import LastCheckpoint, SaveConfig
from geopix.cli_errors import ConfigError, explain, tell
from geopix.cli_places import kept_options
from geopix.cli_weights import refuse_missing
from geopix.data.module import GeoPixData
from geopix.predictions import WritePredictions
from geopix.results import Results
from geopix.task import GeoPixTask

_ROWS = 24
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_MEANT = (
    r"The ``compute`` method of metric \w+ was called before",  # a validation set need not hold every task
    r"You're resuming from a checkpoint that ended before the epoch ended",  # GeoPixData goes on where it stopped
    r"Found \d+ module\(s\) in eval mode at the start of training",  # what is frozen rests
    r"Precision [\w-]+ is not supported by the model summary",
    r"You are using a custom batch sampler `_(Batches|Dealt)`",  # it gives every index once
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
_MEANT_UNLESS_FIT = r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided"  # they matter to a training alone


class Parser(LightningArgumentParser):
    """A parser whose complaints are one message."""

    words: Sequence[str] = ()  # the command, to tell what stood on it from what stood in a file

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise :class:`ConfigError`, told for the user."""
        if not self.exit_on_error:
            super().error(message, ex)
        verbs = self._subcommands_action._name_parser_map if self._subcommands_action else {}
        parser = next((verbs[word] for word in self.words if word in verbs), self)
        raise ConfigError(explain(parser, message, self.words)) from ex


ABOUT: dict[str, str] = {
    "fit": "Train a model in the stages of its curriculum.",
    "validate": "Score a checkpoint on the validation set.",
    "test": "Score a checkpoint on the test set or on benchmarks, by its own free answers.",
    "predict": "Answer questions about your images: pictures, JSONL, GeoTIFF masks and polygons.",
}
"""Verbs in a sentence each; Lightning takes the first line of a docstring, which may end in mid-sentence."""


class GeoPixCLI(LightningCLI):
    """One task, one data module, four verbs."""

    opened: Path | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verbs; checkpoints are always opened with ``weights_only``, predictions are written and not kept."""
        return {verb: {*skip, "weights_only", "return_predictions"} for verb, skip in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of geopix beside those of task, data and trainer. Every verb takes them all, so one file serves all verbs."""
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.add_lightning_class_args(Results, "results")
        parser.add_argument("--benchmark", type=str, nargs="*", default=[], help="test: names or files of benchmarks/ instead of data.test")
        parser.add_argument("--benchmark_root", type=Path, default=Path("data"), help="test: folder of the data sets that benchmarks name")
        parser.add_argument("--init_from", type=str | None, default=None, help="fit: start a new training from the weights of this checkpoint")
        parser.add_argument("--allow_random", type=bool, default=False, help="validate, test, predict: go on without a checkpoint, with random weights")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read the command."""
        self.config = parser.parse_args(args)
        for key, file, names in kept_options(args, self.config[self.config.subcommand]):
            print(f"geopix: {key} keeps {', '.join(names)} of the part before: {file} names the same class and not these options", file=sys.stderr)

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint and compare it with the command. Nothing of the command is replaced by what the checkpoint stores."""
        verb = self.config.subcommand
        said = self.config[verb]
        if said.ckpt_path and said.init_from and verb == "fit":
            raise ConfigError(
                "both --ckpt_path and --init_from are given\n  expected  one of them\n"
                "  next      --ckpt_path resumes a training; --init_from starts a new one from weights alone"
            )
        if said.ckpt_path:
            said.ckpt_path = str(last_checkpoint(said.trainer.default_root_dir or ".") if said.ckpt_path == "last" else said.ckpt_path)
        elif verb != "fit" and not said.allow_random:
            raise CheckpointError(
                f"no checkpoint is given, so {verb} would measure random weights\n"
                "  next      --ckpt_path FILE, or --ckpt_path last for the newest of the run folder\n"
                "            --allow_random true where the level of chance is what you want"
            )
        path = said.ckpt_path or (said.init_from if verb == "fit" else None)
        if path is None:
            return
        self.opened = Path(path)
        self._stored = read_checkpoint(path)
        self._dump_config()
        stored = {name: value for name, value in self._stored.get("hyper_parameters", {}).items() if not name.startswith("_")}
        if stored:
            self._compare(stored, self.config_dump["model"], verb)

    def _compare(self, stored: dict[str, Any], used: dict[str, Any], verb: str) -> None:
        parts = refused = other_parts(stored["net"], used["net"])
        resumed = verb == "fit" and self.config[verb].ckpt_path is not None
        rows = [(f"model.{key}", *values) for key, *values in differences(stored, used)]
        if resumed:
            size = self._stored["geopix"].get("batch_size"), self.config_dump["data"]["batch_size"]
            rows += [("data.batch_size", *size)] if size[0] not in (None, size[1]) else []
            refused = parts + [row for row in rows if row[0].startswith("model.scheduler") or row[0] == "model.optimizer.class_path"]
        elif verb != "fit":
            key = {"validate": "val"}.get(verb, verb)
            others = ("test", "val", "train") if key == "predict" else ()  # whose size is asked at, unless told another
            sides = self._stored["geopix"].get("size"), canvas_of(self.config_dump["data"], key, *others)
            rows += [(f"data.{key}.size", *sides)] if None not in sides and sides[0] != sides[1] else []
        read = {"fit": "train", "validate": "val"}.get(verb, verb)
        before, now = self._stored["geopix"].get("reading"), reading_of(self.config_dump["data"], read)
        rows += [(f"data.{read}.{name}", before[name], now[name]) for name in now if before[name] != now[name]] if before and now else []
        if refused:
            fix = "drop these options" + (", or start a new training from its weights with --init_from" if resumed and not parts else "")
            raise CheckpointError(f"the checkpoint and the command ask for different parts\n{table(refused, 'command')}\n  next      {fix}")
        if rows and (resumed or verb != "fit") and rank_zero_only.rank == 0:
            print(f"geopix: the checkpoint was trained with other values; those of the command are used\n{table(rows, 'used')}", file=sys.stderr)

    def before_instantiate_classes(self) -> None:
        """Look for every weight before any part is built; ask about images at the size of the configuration's other data, unless told another."""
        said = self.config[self.config.subcommand]
        _refuse_unsupported(said.trainer)
        refuse_missing(said.model.net.as_dict())
        asked = said.data.predict.get("init_args") or {} if said.data.predict else {}
        if asked.get("size", 0) is None:
            asked["size"] = canvas_of(said.data.as_dict())

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with its logs in the run folder."""
        config = self._get(self.config_init, "trainer")
        folder = Path(config.default_root_dir or ".") / "logs"
        if config.logger in (None, True):
            loggers = [] if self.subcommand == "predict" else [TensorBoardLogger(folder, name="tensorboard"), CSVLogger(folder, name="csv")]
            return super().instantiate_trainer(logger=loggers or False)
        return super().instantiate_trainer()

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        keep = config.get("enable_checkpointing") is not False
        return super()._instantiate_trainer(config, [each for each in callbacks if keep or not isinstance(each, LastCheckpoint)])

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        known = inspect.signature(vars(Trainer)[subcommand]).parameters
        always = {"weights_only": True, "return_predictions": False} | ({"verbose": False} if subcommand == "test" else {})
        return {**super()._prepare_subcommand_kwargs(subcommand), **{name: value for name, value in always.items() if name in known}}

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == "predict" and not any(isinstance(each, WritePredictions | BasePredictionWriter) for each in self.trainer.callbacks):
            raise ConfigError(
                "predict would keep none of its answers\n  found     no callback that writes them\n"
                "  expected  geopix.predictions.WritePredictions, or another BasePredictionWriter of Lightning\n"
                "  next      --trainer.callbacks+ geopix.predictions.WritePredictions"
            )
        if self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        try:
            for each in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(each, LastCheckpoint) and subcommand == "fit":
                    each.reading = reading_of(self.config["fit"].data.as_dict(), "train")
            if subcommand == "fit" and self.opened is not None:
                self._take(self.model, init=self.config["fit"].init_from is not None)
            self._stored = {}
            if subcommand == "test" and self.config["test"].benchmark:
                self._test_benchmarks()
            else:
                super()._run_subcommand(subcommand)
        except CheckpointError as error:
            raise CheckpointError(f"{error}\n  file      {self.opened}") from error

    def _test_benchmarks(self) -> None:
        """Test on one benchmark after the other, each with a folder of its own below the run folder; all of them are looked at before the first starts."""
        said = self.config["test"]
        size, batch = canvas_of(said.data.as_dict()), said.data.eval_batch_size or said.data.batch_size
        parser = Parser(exit_on_error=True)
        found = read_benchmarks(said.benchmark, parser, root=said.benchmark_root, size=size, batch=batch, workers=said.data.num_workers)
        results = next(each for each in self.trainer.callbacks if isinstance(each, Results))  # type: ignore[attr-defined]
        folder = results.folder or Path(self.trainer.default_root_dir)
        for name, data in found.items():
            results.folder = folder / name
            self.trainer.test(**{**self._prepare_subcommand_kwargs("test"), "datamodule": data})

    def _take(self, task: GeoPixTask, *, init: bool) -> None:
        """Check a checkpoint before anything expensive starts; take the weights where a new training begins with them."""
        check_checkpoint(self._stored, task.state_dict(), task.trainable, task.net.fixed_classes)
        if init:
            task.load_state_dict(self._stored["state_dict"], strict=False)
        else:
            check_resume(self._stored, task.trainable)


def _refuse_unsupported(trainer: Any) -> None:
    """Precisions that cast a batch and strategies that shard the model do not go through; Lightning's own error names neither.

    Raises:
        ConfigError: naming the option.
    """
    precision, strategy = str(trainer.precision), str(trainer.strategy.get("class_path") if hasattr(trainer.strategy, "get") else trainer.strategy).lower()
    if precision not in ("None", "32", "32-true", "16-mixed", "bf16-mixed", "16", "bf16"):
        raise ConfigError(f"trainer.precision {precision} is not supported\n  next      bf16-mixed; the language model's dtype holds a frozen base in bfloat16")
    if any(name in strategy for name in ("fsdp", "deepspeed", "model_parallel", "modelparallel")):
        raise ConfigError(
            f"trainer.strategy {strategy} is not supported\n  next      ddp_find_unused_parameters_true; a frozen base takes less memory by dtype or quantise"
        )


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensor. No effect where it is not glibc.

    Otherwise glibc returns each large block to the system at once, and each step of a training waits for fresh pages again
    (``benchmarks/freed_memory.py`` measures it). The price is that a process holds the most it ever used.
    """
    if platform.libc_ver()[0] == "glibc":
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28)):
            ctypes.CDLL(None).mallopt(option, value)


def table(rows: Sequence[tuple[str, Any, Any]], last: str) -> str:
    """Rows of key, value in the checkpoint, and value of the command."""
    shown = [("key", "checkpoint", last), *((key, _short(before), _short(now)) for key, before, now in rows[:_ROWS])]
    widths = [max(len(row[column]) for row in shown) for column in range(2)]
    lines = [f"  {key:<{widths[0]}}  {before:<{widths[1]}}  {now}" for key, before, now in shown]
    return "\n".join(lines if len(rows) <= _ROWS else [*lines, f"  ... and {len(rows) - _ROWS} more"])


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


def _importable(args: Sequence[str]) -> None:
    """Let ``class_path`` name modules beside a configuration file and in the working folder."""
    files = [Path(after) for option, after in pairwise(args) if option in ("--config", "-c")]
    files += [Path(each.partition("=")[2]) for each in args if each.startswith(("--config=", "-c="))]
    for folder in [str(Path.cwd()), *(str(file.resolve().parent) for file in files)]:
        if folder not in sys.path:
            sys.path.append(folder)


def _quiet(verb: str) -> None:
    """Leave out advertisements, and warnings about what is meant so: a validation set need not hold every task."""
    for meant in _MEANT if verb == "fit" else (*_MEANT, _MEANT_UNLESS_FIT):
        warnings.filterwarnings("ignore", message=meant)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if not logger.filters:
        logger.addFilter(lambda record: "Tip:" not in record.getMessage())


def main(args: list[str] | None = None) -> int:
    """Run a verb.

    Returns:
        0, or the exit code of a mistake that was told: 2 configuration, 3 data, 5 checkpoint.
    """
    args = sys.argv[1:] if args is None else args
    Parser.words = args
    _importable(args)
    _quiet(args[0] if args else "")
    try:
        GeoPixCLI(
            GeoPixTask,
            GeoPixData,
            args=args,
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False, **{verb: {"description": about} for verb, about in ABOUT.items()}},
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"max_epochs": 1, "use_distributed_sampler": False, "default_root_dir": "runs/unnamed"},
        )
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except Exception as error:
        told = (2, str(error)) if isinstance(error, MisconfigurationException) else tell(error)
        if told is None:
            raise
        code, message = told
        if os.environ.get("GEOPIX_TRACE") == "1":
            traceback.print_exc()
        print(f"geopix: {message}", file=sys.stderr)
        return code
    return 0
