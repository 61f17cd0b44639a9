"""What it saves on a CPU to keep freed memory: training steps of the small decoder for 128 px images, before and after, in one process.

    python benchmarks/freed_memory.py
"""

from __future__ import annotations

import argparse
import time

import torch

from geopix.cli import keep_freed_memory
from geopix.decoders.multi_scale import MultiScaleDecoder


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, default=160)
    parser.add_argument("--steps", type=int, default=8)
    said = parser.parse_args()

    torch.manual_seed(0)
    decoder = MultiScaleDecoder([48, 96], 128, dim=64, neck_dim=96, grid=16, heads=4, mlp_dim=128, mask_dim=32, levels=[1, 0], pyramid=True)
    features = [torch.randn(16, 48, 32, 32), torch.randn(16, 96, 16, 16)]
    prompts, image_index = torch.randn(said.masks, 6, 128), torch.arange(said.masks) % 16

    def seconds() -> float:
        """Median of some steps, after two that count for nothing."""
        times = []
        for _ in range(said.steps + 2):
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                drawing = decoder(features, prompts, image_index)
            drawing.mask_logits.float().square().mean().backward()
            times.append(time.perf_counter() - began)
        return sorted(times[2:])[said.steps // 2]

    before = seconds()
    keep_freed_memory()
    after = seconds()
    print(f"{said.masks} masks, {torch.get_num_threads()} threads: a step takes {after / before:.2f} of the time with freed memory kept")


if __name__ == "__main__":
    main()
