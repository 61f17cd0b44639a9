"""What a checkpoint holds, how it is opened, and what is compared before anything of it is loaded.

A checkpoint holds what was trained, the buffers, and a manifest under ``geopix`` that says what that is and what it needs beside it.
It is plain tensors, numbers and strings: it is opened without running any code.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from geopix import __version__

SLOTS = ("encoder", "connector", "llm", "decoder", "memory", "pixel_encoder")
_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
_SHOWN = 6


class CheckpointError(ValueError):
    """A checkpoint that cannot be used as asked: what, where, and the next step."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Open a checkpoint without running code that it may hold.

    Raises:
        CheckpointError: when there is no such file, when it is something else (a git-lfs pointer, a web page, a cut-off download, a file
            with Python objects), or when geopix did not write it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(_absent(path))
    _look(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about a foreign pickle's protocol; what it holds is told below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unsafe(path, str(error))) from error
    except (RuntimeError, EOFError, OSError, BadZipFile, KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read\n  found     {path.stat().st_size:,} bytes that end too early or are damaged ({_first_line(error)})\n"
            "  expected  a checkpoint that geopix fit wrote\n  next      copy or download it again, or use an earlier checkpoint"
        ) from error
    if not isinstance(checkpoint, dict) or "geopix" not in checkpoint or "state_dict" not in checkpoint:
        keys = f"a dictionary of {', '.join(sorted(map(str, checkpoint))[:_SHOWN])}" if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise CheckpointError(
            f"{path} is no geopix checkpoint\n  found     {keys}, without a manifest under 'geopix'\n  expected  a file that geopix fit wrote\n"
            "  next      weights of other programs belong into a part's own option, such as a folder, hub name or file of the encoder"
        )
    return checkpoint


def last_checkpoint(folder: str | Path) -> Path:
    """``checkpoints/last.ckpt`` of a run folder.

    Raises:
        CheckpointError: when there is none.
    """
    path = Path(folder) / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise CheckpointError(
            f"there is no last checkpoint in the run folder {folder}\n  expected  {path}\n"
            "  next      train first, name the run's folder with --trainer.default_root_dir, or give --ckpt_path a file"
        )
    return path


def trained_state(module: nn.Module, state: Mapping[str, Any], trainable: frozenset[str]) -> dict[str, Any]:
    """What of a module's state dict a checkpoint keeps: all but the parameters that were never trained, under whichever of their names."""
    trained = {id(parameter) for name, parameter in module.named_parameters() if name in trainable}
    frozen = {name for name, parameter in module.named_parameters(remove_duplicate=False) if id(parameter) not in trained}
    return {name: value for name, value in state.items() if name not in frozen}


def manifest(
    parameters: Iterable[str], trainable: frozenset[str], *, classes: Sequence[str], bands: int, seg_tokens: int, hparams: Mapping[str, Any]
) -> dict[str, Any]:
    """What a checkpoint says about itself.

    Args:
        parameters: names of all parameters, such as ``net.encoder.conv1.weight``.
        trainable: the names among them that were trained.
        classes: the memory's vocabulary.
        bands: image bands that the model reads.
        seg_tokens: tokens that one ``[SEG]`` becomes.
        hparams: the configuration of the task, where it was built from one.
    """
    frozen = {name.split(".")[1] for name in set(parameters) - trainable}
    net = hparams.get("net", {})
    return {
        "version": __version__,
        "trained": sorted(trainable),
        "needs": {slot: net.get(slot) if isinstance(net, Mapping) else None for slot in sorted(frozen)},
        "classes": list(classes),
        "bands": bands,
        "seg_tokens": seg_tokens,
    }


def check_checkpoint(checkpoint: Mapping[str, Any], own: Mapping[str, Any], trainable: frozenset[str], classes: Sequence[str] | None) -> None:
    """Compare a checkpoint with a model before anything is loaded.

    Args:
        own: the state dict of the model.
        trainable: names that the model trains; each must be in the checkpoint.
        classes: the vocabulary of the model's memory; None where another one fits the same weights.

    Raises:
        CheckpointError: naming every trainable parameter that is missing or has another shape, everything that the model has no place for,
            and a class vocabulary that differs.
    """
    if "geopix" not in checkpoint:
        raise CheckpointError("this is no geopix checkpoint: it has no manifest under 'geopix'\n  next      give a file that geopix fit wrote")
    state = checkpoint["state_dict"]
    missing = sorted(name for name in trainable if name not in state)
    extra = sorted(name for name in state if name not in own)
    reshaped = [
        f"{name} {tuple(state[name].shape)}, in the model {tuple(own[name].shape)}"
        for name in sorted(set(state) & set(own))
        if isinstance(own[name], Tensor) and own[name].shape != state[name].shape
    ]
    lines = [*_few("missing", missing), *_few("no place", extra), *_few("shapes", reshaped)]
    stored = checkpoint["geopix"]["classes"]
    if classes is not None and stored != list(classes):
        lines.append(f"  classes   {_words(stored)} in the checkpoint, {_words(classes)} in the model")
    if lines:
        fix = "  next      use the configuration that it was trained with (config.yaml of its run folder), or drop the options that change shapes"
        raise CheckpointError("\n".join(["the checkpoint does not fit the model", *lines, fix]))


def check_resume(checkpoint: Mapping[str, Any], trainable: frozenset[str]) -> None:
    """A resumed training must train what the stopped one trained, or its optimizer's state would go to other parameters.

    Raises:
        CheckpointError: when it does not, or when the checkpoint holds no training state.
    """
    if "optimizer_states" not in checkpoint:
        raise CheckpointError("the checkpoint holds weights alone, so no training can be resumed from it\n  next      give it to --init_from")
    before, now = set(checkpoint["geopix"]["trained"]), set(trainable)
    lines = [*_few("no more", sorted(before - now)), *_few("new", sorted(now - before))]
    if lines:
        head = f"the checkpoint trained {len(before)} parameters, the command trains {len(now)}"
        raise CheckpointError("\n".join([head, *lines, "  next      --init_from starts a new training from its weights; --ckpt_path resumes the same one"]))


def use_own_options(checkpoint: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Give a checkpoint's optimizer state the options of this run's optimizer: what the user says wins, also for the learning rate.

    Where schedules have moved the stored rates, they are scaled as the base rate is.
    """
    for state in checkpoint.get("optimizer_states", ()):
        if len(state["param_groups"]) != len(optimizer.param_groups):
            continue  # another training's state, which only check_resume lets through to a verb that does not use it
        factors = []
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
            factor = own["lr"] / base if (base := saved.get("initial_lr", saved["lr"])) else 1.0
            factors.append(factor)
            moved = {"params", *_RATES, *(("betas", "momentum") if "max_momentum" in saved else ())}
            saved.update({name: value for name, value in own.items() if name not in moved})
            if factor != 1.0:
                saved.update({name: saved[name] * factor for name in _RATES if name in saved})
        for schedule in checkpoint.get("lr_schedulers", ()):
            for name in ("base_lrs", "_last_lr"):
                if len(schedule.get(name, ())) == len(factors):
                    schedule[name] = [rate * factor for rate, factor in zip(schedule[name], factors, strict=True)]


def differences(stored: Mapping[str, Any], used: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys of two configurations whose values differ: key, value in the first, value in the second; ``"-"`` where a key is absent."""
    left, right = _flat(stored), _flat(used)
    return [(key, left.get(key, "-"), right.get(key, "-")) for key in sorted(left.keys() | right.keys()) if left.get(key, "-") != right.get(key, "-")]


def other_parts(stored: Mapping[str, Any], used: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Slots of two model configurations that hold parts of different classes."""
    pairs = [(slot, _class_path(stored.get(slot)), _class_path(used.get(slot))) for slot in SLOTS]
    return [(f"model.net.{slot}", before, now) for slot, before, now in pairs if before != now]


def _class_path(part: Any) -> str:
    return str(part["class_path"]) if isinstance(part, Mapping) else "none"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value})
    return flat


def _absent(path: Path) -> str:
    around = sorted(str(each) for each in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
    near = get_close_matches(str(path), around, 1, 0.5) or around[:1]
    what = "is a folder, not a checkpoint" if path.is_dir() else "does not exist"
    hint = f"did you mean {near[0]}" if near else "give a file that geopix fit wrote, or 'last' for the newest of the run folder"
    return f"checkpoint {path} {what}\n  next      {hint}"


def _look(path: Path) -> None:
    """Say what a file is that is no archive at all.

    Raises:
        CheckpointError: for a git-lfs pointer, a web page or an empty file.
    """
    with path.open("rb") as file:
        head = file.read(512)
    size = path.stat().st_size
    text = head.decode("utf-8", "replace").strip().lower()
    if not head:
        raise CheckpointError(f"checkpoint {path} is empty (0 bytes)\n  next      copy or download it again")
    if text.startswith("version https://git-lfs"):
        wanted = re.search(r"size (\d+)", text)
        raise CheckpointError(
            f"checkpoint {path} is a git-lfs pointer, not the file itself\n  found     {size} bytes of text"
            + (f"\n  expected  {int(wanted[1]):,} bytes" if wanted else "")
            + f"\n  next      git lfs pull --include {path.name}"
        )
    if text.startswith(("<!doctype", "<html", "<?xml")):
        raise CheckpointError(
            f"checkpoint {path} is a web page, not a checkpoint\n  found     {size:,} bytes that begin with {text[:30]!r}\n"
            "  next      the download was answered by a page (a licence, a quota, a login); open it in a browser and download again"
        )


def _unsafe(path: Path, error: str) -> str:
    names = sorted(set(re.findall(r"GLOBAL ([\w.]+)", error)))
    with path.open("rb") as file:
        pickled = file.read(1) == pickle.PROTO
    if not names and not pickled:
        return f"{path} is no checkpoint\n  found     {path.stat().st_size:,} bytes of another format\n  expected  a file that geopix fit wrote"
    return (
        f"{path} holds Python objects, so it is not opened\n  objects   {', '.join(names[:_SHOWN]) or 'a Python pickle'}\n"
        "  why       opening them can run code; geopix checkpoints never hold any\n"
        "  next      ask its author for the tensors alone (safetensors, or a geopix checkpoint)"
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__


def _few(label: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    first = [f"  {label:<9} {len(names)}: {names[0]}", *(f"{'':12}{name}" for name in names[1:3])]
    return first if len(names) <= 3 else [*first[:-1], f"{first[-1]} ..."]


def _words(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
