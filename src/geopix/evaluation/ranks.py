"""What the processes of a run tell each other while they score."""

from __future__ import annotations

from typing import TypeVar

import torch

Told = TypeVar("Told")


def everywhere(mine: Told) -> list[Told]:
    """What each rank holds, in the order of ranks; what this process holds alone where there is no other. Every rank must call it."""
    if not _several():
        return [mine]
    held: list[Told | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(held, mine)
    return held  # type: ignore[return-value]


def wait() -> None:
    """Go on when every rank has come here."""
    if _several():
        torch.distributed.barrier()


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
