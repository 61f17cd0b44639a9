"""What timm's Muon would save in float32 on this CPU: it orthogonalises updates in bfloat16, for which many CPUs have no instructions.

    python benchmarks/muon_precision.py

Prints, for square matrices, the seconds of both and their ratio in one run, on one thread.
"""

from __future__ import annotations

import time

import torch
from timm.optim.muon import zeropower_via_newtonschulz

STEPS, COEFFICIENTS, REPEATS = 5, [(3.4445, -4.7750, 2.0315)], 5


def seconds(side: int, dtype: torch.dtype) -> float:
    """The best of some orthogonalisations of a random matrix."""
    matrix, taken = torch.randn(side, side, generator=torch.Generator().manual_seed(0)), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        zeropower_via_newtonschulz(matrix, STEPS, COEFFICIENTS, dtype=dtype)
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"CPU {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}")
    for side in (96, 192, 384):
        ours, theirs = seconds(side, torch.float32), seconds(side, torch.bfloat16)
        print(f"{side:>4} x {side:<4} float32 {ours:.4f} s, bfloat16 {theirs:.4f} s: {theirs / ours:.1f} times as long")
