"""A folder of released weights, opened without reading them: what it lacks is collected, told in one error, and only then is anything read."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

_SHOWN = 30
_DAMAGED = (RuntimeError, EOFError, OSError, BadZipFile, KeyError, IndexError, ValueError)


class StoredTensors:
    """The tensors of one or several files by name; those in safetensors stay on disk until they are read one by one.

    Args:
        file: what messages call it.

    Attributes:
        complete: every file was there and could be opened.
        shapes: of each tensor.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.complete = False
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._read: dict[str, Any] = {}
        self._held: dict[str, Tensor] = {}

    def add_safetensors(self, path: Path) -> None:
        """Note what a file holds.

        Raises:
            SafetensorError: when it is damaged.
        """
        file = safe_open(path, framework="pt")
        for name in file.keys():  # noqa: SIM118 (no mapping)
            self.shapes[name] = tuple(file.get_slice(name).get_shape())
            self._read[name] = file

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Take tensors that are in memory already."""
        self._held.update(tensors)
        self.shapes.update({name: tuple(tensor.shape) for name, tensor in tensors.items()})

    def read(self, name: str) -> Tensor:
        """One tensor, as it is stored."""
        return self._held[name] if name in self._held else self._read[name].get_tensor(name)

    def width(self, name: str, dimension: int, otherwise: int) -> int:
        """A size of a tensor; another where there is no such tensor, which is told when the tensor itself is planned."""
        shape = self.shapes.get(name, ())
        return shape[dimension] if dimension < len(shape) else otherwise


class ReleasedFolder:
    """Plans what is read into which module; at the end of a ``with`` block it raises all problems, or else reads.

    Args:
        path: the folder.

    Raises:
        ValueError: when it is not there; at the end of the block, with every file, tensor and setting that is missing or does not fit.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_dir():
            raise ValueError(f"there is no folder {self.path}; give the folder of the released weights, the one that holds vlm/, seg/, pec/ and clm/.")
        self.problems: list[str] = []
        self._pointers = False
        self._opened: dict[str, StoredTensors] = {}
        self._copies: list[tuple[Tensor, StoredTensors, str, bool]] = []

    def __enter__(self) -> ReleasedFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.refuse()
            for own, stored, name, flip in self._copies:
                value = stored.read(name).reshape(own.shape)
                own.copy_(value.flip(1) if flip else value)

    def refuse(self) -> None:
        """Stop here if anything is wrong so far.

        Raises:
            ValueError: with everything that is wrong so far.
        """
        if self.problems:
            problems = list(dict.fromkeys(self.problems))
            shown = [*problems[:_SHOWN], *([f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])]
            step = f"run `git lfs pull` in {self.path}" if self._pointers else "check that the download is complete, and that it is GeoPix-ft-sior_rsicap"
            raise ValueError("\n  ".join([f"{self.path} does not hold what is read from it:", *shown, f"next: {step}"]))

    # ------------------------------------------------------------------ files

    def need(self, *files: str) -> None:
        """Files that are missing or no files are problems."""
        for file in files:
            self._file(file)

    def settings(self, name: str, *, expected: Mapping[str, object] | None = None) -> dict[str, Any]:
        """A JSON file; empty, with a problem, when it cannot be read. Each setting that is there with another value than expected is a problem."""
        path = self._file(name)
        if path is None:
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            found = str(error)
        if not isinstance(found, dict):
            self.problems.append(f"file {name}: not the JSON object that is expected ({str(found)[:80]})")
            return {}
        for key, value in (expected or {}).items():
            if found.get(key, value) != value:
                self.problems.append(f"setting {key} of {name}: found {found[key]!r}, expected {value!r}")
        return found

    def tensors(self, name: str) -> StoredTensors:
        """A safetensors file, or its shards where an index beside it names some. Empty, with problems, when one cannot be read."""
        if name not in self._opened:
            self._opened[name] = StoredTensors(name)
            index = f"{name}.index.json"
            if (self.path / name).is_file() or not (self.path / index).is_file():
                files = [name]
            else:
                listed = self.settings(index).get("weight_map", {})
                files = sorted({str(Path(name).parent / shard) for shard in listed.values()})
                if not files:
                    self.problems.append(f"file {index}: it names no shard")
            found = [path for file in files if (path := self._file(file)) is not None]
            whole = StoredTensors(name)
            for path in found:
                try:
                    whole.add_safetensors(path)
                except (SafetensorError, OSError) as error:
                    found = []
                    self.problems.append(f"file {path.relative_to(self.path)}: {path.stat().st_size:,} bytes, no complete safetensors file ({error})")
            if files and len(found) == len(files):
                whole.complete = True
                self._opened[name] = whole
        return self._opened[name]

    def pickled(self, name: str, *, numbers: int | None = None) -> StoredTensors:
        """A ``.pth`` file with a state dict, opened without running code that it may hold. Empty, with a problem, when it cannot be read.

        Args:
            numbers: it is a list of numbers instead; so many of them are one tensor, named ``numbers``.
        """
        stored, path = StoredTensors(name), self._file(name)
        if path is None:
            return stored
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about a foreign pickle's protocol
                found = torch.load(path, map_location="cpu", weights_only=True)
            if numbers is None:
                stored.add({str(key): value.detach() for key, value in found.items()})
            else:
                listed = found if isinstance(found, Tensor) else torch.stack([torch.as_tensor(value).detach().float().reshape(()) for value in found])
                stored.add({"numbers": listed.detach().flatten()[:numbers]})
            stored.complete = True
        except pickle.UnpicklingError:
            self.problems.append(f"file {name}: it holds Python objects beside tensors, or is no file of torch.save; it could run code, so it is not opened")
        except (*_DAMAGED, AttributeError, TypeError) as error:
            kind = "a list of numbers" if numbers else "a state dict"
            why = (str(error).strip() or type(error).__name__).splitlines()[0][:80]
            self.problems.append(f"file {name}: {path.stat().st_size:,} bytes that are no {kind}, or are damaged ({why})")
        return stored

    def _file(self, name: str) -> Path | None:
        path = self.path / name
        if not path.is_file():
            self.problems.append(f"file {name}: missing")
            return None
        with path.open("rb") as file:
            head = file.read(40)
        if head.startswith(b"version https://git-lfs"):
            self._pointers = True
            self.problems.append(f"file {name}: a git-lfs pointer of {path.stat().st_size} bytes, not the file itself")
            return None
        return path

    # ------------------------------------------------------------------ weights

    def plan(self, module: nn.Module, stored: StoredTensors, names: Mapping[str, str], *, flip: Collection[str] = (), spare: str = "") -> None:
        """Note which stored tensor goes to which of a module's parameters and buffers; each that is missing or has another shape is a problem.

        Args:
            names: from the module's own name to the stored one.
            flip: own names whose second dimension (colours) is read backwards.
            spare: pattern of stored names that are known not to matter here; a warning tells any other that no name asks for.
        """
        if not stored.complete:
            return  # a file that could not be opened is one problem, not one per tensor
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for mine, theirs in names.items():
            shape, found = tuple(own[mine].shape), stored.shapes.get(theirs)
            if found is None:
                self.problems.append(f"tensor {theirs} of {stored.file}: missing, expected {_words(shape)}")
            elif found not in (shape, (1, *shape)):
                self.problems.append(f"tensor {theirs} of {stored.file}: found {_words(found)}, expected {_words(shape)}")
            else:
                self._copies.append((own[mine].data, stored, theirs, mine in flip))
        unknown = sorted(name for name in stored.shapes if name not in set(names.values()) and not (spare and re.search(spare, name)))
        if unknown:
            rest = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            text = f"{self.path / stored.file}: {', '.join(unknown[:3])}{rest} have no place in the model and are not read; its answers may differ."
            warnings.warn(text, stacklevel=4)


def _words(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
