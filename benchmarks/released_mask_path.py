"""What the released mask path costs here, beside a baseline that does what the release does: time, peak memory, and whether the masks are equal.

    python benchmarks/released_mask_path.py                     # some minutes and 4 GB; writes benchmarks/results/costs/released_mask_path.json
    python benchmarks/released_mask_path.py --targets 1 --repeats 3

Both get the same random weights and start behind the necks: two maps of 256 x 32 x 32 of one image, and the fused tokens of each target. The baseline
is written from the description of the release (Norman-Ou/GeoPix): four decoder passes, two passes through a memory with its whole bank of 629,145,600 numbers
and its Conv3d fuser, the image's features repeated for each target, four hyper-networks and a quality head. Times are medians of interleaved runs.
Each path's memory is that of a process of its own: the peak of the whole process, of which most is libraries here, and the peak of the
path, above what the process held once they were imported (Linux's ``VmHWM``, reset in between).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "costs" / "released_mask_path.json"
TARGETS = (1, 4, 16)
CLASSES, LEVELS, SLOTS, SLOT_DIM, DIM, GRID, FINE = 75, 2, 64, 64, 256, 32, 128


class Attention(nn.Module):
    """Segment Anything's attention: every projection applied to what it stands before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(DIM, width) for _ in range(3))
        self.out_proj = nn.Linear(width, DIM)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (each.unflatten(-1, (8, -1)).transpose(1, 2) for each in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))


class LayerNorm2d(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return self.weight[:, None, None] * (centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()) + self.bias[:, None, None]


class MLP(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention(DIM)
        self.cross_attn_token_to_image, self.cross_attn_image_to_token = Attention(DIM // 2), Attention(DIM // 2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(DIM) for _ in range(4))
        self.mlp = nn.ModuleDict({"lin1": nn.Linear(DIM, 2048), "lin2": nn.Linear(2048, DIM)})

    def forward(self, tokens: Tensor, cells: Tensor, token_code: Tensor, cell_code: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        coded = tokens + token_code
        tokens = self.norm1(self.self_attn(tokens, tokens, tokens) if first else tokens + self.self_attn(coded, coded, tokens))
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_code, cells + cell_code, cells))
        tokens = self.norm3(tokens + self.mlp["lin2"](F.relu(self.mlp["lin1"](tokens))))
        return tokens, self.norm4(cells + self.cross_attn_image_to_token(cells + cell_code, tokens + token_code, tokens))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.final_attn_token_to_image, self.norm_final_attn = Attention(DIM // 2), nn.LayerNorm(DIM)

    def forward(self, tokens: Tensor, image: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        start, cells, cell_code = tokens, image.flatten(2).transpose(1, 2), code.flatten(2).transpose(1, 2)
        for index, layer in enumerate(self.layers):
            tokens, cells = layer(tokens, cells, start, cell_code, index == 0)
        read = self.final_attn_token_to_image(tokens + start, cells + cell_code, cells)
        return self.norm_final_attn(tokens + read), cells


class Position(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, DIM // 2))

    def forward(self, size: int) -> Tensor:
        along = (torch.arange(size) + 0.5) / size * 2 - 1
        place = torch.stack([along.expand(size, size), along[:, None].expand(size, size)], -1)
        angle = 2 * torch.pi * (place @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angle.sin(), angle.cos()], -1).permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.no_mask_embed, self.pe_layer = nn.Embedding(1, DIM), Position()


class ReleasedDecoder(nn.Module):
    """One pass of the release's mask decoder, over all targets of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.iou_token, self.mask_tokens, self.level_embed = nn.Embedding(1, DIM), nn.Embedding(4, DIM), nn.Embedding(LEVELS, DIM)
        self.transformer = nn.ModuleList(Transformer() for _ in range(LEVELS))
        self.output_upscaling = nn.Sequential(nn.ConvTranspose2d(DIM, DIM // 8, 2, 2), LayerNorm2d(DIM // 8), nn.GELU())
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(DIM, DIM, DIM, DIM // 8) for _ in range(4))
        self.iou_prediction_head = MLP(DIM, DIM, DIM, 4)
        self.upsample_2x = nn.Sequential(nn.ConvTranspose2d(DIM, DIM, 2, 2), LayerNorm2d(DIM), nn.GELU())
        self.pe1 = Position()

    def forward(self, features: Tensor, prompt: PromptEncoder, query: Tensor, previous: Tensor | None, level: int) -> Tensor:
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(len(query), -1, -1)
        tokens = torch.cat([own, query[:, None]], 1) + self.level_embed.weight[level]
        code = self.pe1(2 * GRID) if level else prompt.pe_layer(GRID)
        image = (self.upsample_2x(features) if level else features).repeat_interleave(len(query), 0)
        if previous is not None:
            image = image * (previous.sigmoid() + 1)
        image = image + prompt.no_mask_embed.weight.view(1, -1, 1, 1).expand_as(image)
        tokens, cells = self.transformer[level](tokens, image, code.repeat_interleave(len(query), 0))
        upscaled = self.output_upscaling(cells.transpose(1, 2).reshape(image.shape))
        vectors = torch.stack([each(tokens[:, 1 + index]) for index, each in enumerate(self.output_hypernetworks_mlps)], 1)
        masks = (vectors @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
        self.iou_prediction_head(tokens[:, 0])
        return masks[:, :1]


class ResBlock(nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.downsample(x))


class ReleasedMemory(nn.Module):
    """The release's memory with all that it computes, most of which changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.randn(CLASSES, LEVELS, SLOTS, SLOT_DIM, GRID, GRID))
        self.downsample = nn.Sequential(ResBlock(1, 16, 2), ResBlock(16, 32, 2), ResBlock(32, 64, 1))
        self.project = nn.Conv2d(DIM, SLOT_DIM, 1)
        self.spatial, self.norm_spatial = nn.Conv2d(SLOT_DIM, SLOT_DIM, 7, padding=3, groups=SLOT_DIM), LayerNorm2d(SLOT_DIM)
        self.channel = nn.Sequential(nn.Linear(SLOT_DIM, 4 * SLOT_DIM), nn.GELU(), nn.Linear(4 * SLOT_DIM, SLOT_DIM))
        self.gate = nn.Parameter(torch.full((SLOT_DIM,), 1e-6))
        widths = (SLOTS, 32, 16, 1)
        layers = [[nn.Conv3d(a, b, 1), nn.BatchNorm3d(b), nn.ReLU()] for a, b in pairwise(widths)]
        self.fuser = nn.Sequential(*(layer for three in layers for layer in three))
        self.self_attention = nn.MultiheadAttention(DIM, 1, batch_first=True)
        self.read = nn.MultiheadAttention(DIM, 4, kdim=SLOT_DIM, vdim=SLOT_DIM, batch_first=True)
        self.code, self.memory_code = nn.Parameter(torch.randn(1, 5000, DIM)), nn.Parameter(torch.randn(1, 5000, SLOT_DIM))
        self.norm1, self.norm2, self.norm3, self.norm = (nn.LayerNorm(DIM) for _ in range(4))
        self.ffn = nn.Sequential(nn.Linear(DIM, 512), nn.ReLU(), nn.Linear(512, DIM))
        self.scale = nn.Parameter(torch.full((DIM,), 1.421))

    def forward(self, features: Tensor, mask: Tensor, classes: list[int], level: int) -> Tensor:
        seen = self.project(features) + self.downsample(mask.sigmoid())
        mixed = self.channel(self.norm_spatial(self.spatial(seen)).permute(0, 2, 3, 1)) * self.gate
        seen + mixed.permute(0, 3, 1, 2)  # never used
        slots = self.fuser(self.bank[classes, level].permute(2, 1, 0, 3, 4)).squeeze(1).transpose(0, 1)
        cells, keys = features.flatten(2).permute(2, 0, 1), slots.flatten(2).permute(2, 0, 1)
        x = self.norm1(cells)
        coded = x + self.code[:, : x.shape[1]]
        self.self_attention(coded, coded, x)  # its result is never added, nor are those of the next two
        self.read(self.norm2(cells), keys + self.memory_code[:, : keys.shape[1]], keys)
        self.ffn(self.norm3(cells))
        return self.norm(cells + cells * self.scale).permute(1, 2, 0).view_as(features)


class Baseline(nn.Module):
    """The mask path of the release: each level draws a first mask for a memory that ignores it, and draws again."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_decoder, self.prompt_encoder = ReleasedDecoder(), PromptEncoder()

    def forward(self, memory: ReleasedMemory, maps: list[Tensor], fused: Tensor) -> Tensor:
        previous, total = None, torch.zeros(())
        for level, features in enumerate(maps):
            coarse = self.mask_decoder(features, self.prompt_encoder, fused[:, level], previous, level)
            refined = memory(features, F.interpolate(coarse, size=(FINE, FINE), mode="bilinear"), [CLASSES - 1], level)
            previous = self.mask_decoder(refined, self.prompt_encoder, fused[:, level], previous, level)
            total = total + F.interpolate(previous, size=(FINE, FINE), mode="bilinear") / LEVELS
        return total[:, 0]


class Given(nn.Module):
    """In a neck's place: the map comes ready."""

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        return features


Masks = Callable[[list[Tensor], Tensor], Tensor]


def baseline(stored: Baseline) -> tuple[Masks, nn.Module]:
    memory = ReleasedMemory().eval()
    return lambda maps, fused: stored(memory, maps, fused), memory


def ours(stored: Baseline) -> tuple[Masks, nn.Module]:
    """The parts that read the released layout, with the baseline's weights."""
    from geopix.contracts import ImageRecall
    from geopix.decoders.multi_scale import MultiScaleDecoder
    from geopix.memory.as_released import AsReleasedMemory
    from geopix.released import names

    decoder, memory = MultiScaleDecoder((DIM, DIM), DIM, neck_dim=8, prompt_hidden=8).eval(), AsReleasedMemory((DIM, DIM), DIM).eval()
    own, theirs = [name for name, _ in [*decoder.named_parameters(), *decoder.named_buffers()]], stored.state_dict()
    state = {mine: theirs[name] for mine, name in {**names.seg_names(own), **names.PEC_NAMES}.items()}
    state["no_mask"] = state["no_mask"][0]
    missing, extra = decoder.load_state_dict(state, strict=False)
    assert not extra
    assert {name.split(".")[0] for name in missing} == {"necks", "prompt_proj", "token_weights", "level_weights", "quality_mlp", "locator"}
    decoder.necks, decoder.prompt_proj = nn.ModuleList([Given(), Given()]), nn.Identity()
    nothing, unknown, image = torch.zeros(1, 6, DIM), torch.tensor([-1]), torch.tensor([0])
    recall = ImageRecall(lambda features, level: memory(features, image, features.new_zeros(1, 1, 1), level, prompts=nothing, class_ids=unknown))

    def path(maps: list[Tensor], fused: Tensor) -> Tensor:
        prompts = fused[:, :, None].expand(-1, -1, 3, -1).flatten(1, 2)
        return decoder(maps[::-1], prompts, torch.zeros(len(fused), dtype=torch.long), recall).mask_logits

    return path, memory


def inputs(targets: int) -> tuple[list[Tensor], Tensor]:
    random = torch.Generator().manual_seed(targets)
    return [torch.randn(1, DIM, GRID, GRID, generator=random).relu() for _ in range(LEVELS)], torch.randn(targets, LEVELS, DIM, generator=random)


def resident(field: str) -> float:
    """MiB that this process holds (``VmRSS``), or the most it held since the last reset (``VmHWM``)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


@torch.no_grad()
def hold(which: str, targets: int) -> dict[str, float]:
    """Run one path in this process, which does nothing else."""
    if which == "ours":
        import geopix.released  # noqa: F401
    highest = resident("VmHWM")  # ru_maxrss also counts the process that started this one
    Path("/proc/self/clear_refs").write_text("5")
    start = resident("VmRSS")
    path, _ = {"ours": ours, "baseline": baseline}[which](Baseline().eval())
    for _ in range(2):
        path(*inputs(targets))
    peak = resident("VmHWM")
    return {"path_MiB": peak - start, "process_MiB": max(highest, peak), "imports_MiB": start}


@torch.no_grad()
def compare(targets: list[int], repeats: int) -> dict[str, Any]:
    """Times of both, turn about, and how far their masks are apart."""
    torch.manual_seed(0)
    stored = Baseline().eval()
    (slow, slow_memory), (fast, fast_memory) = baseline(stored), ours(stored)
    fast_memory.load_state_dict({"scales.0": slow_memory.scale, "norms.0.weight": slow_memory.norm.weight, "norms.0.bias": slow_memory.norm.bias})
    found: dict[str, Any] = {}
    for count in targets:
        given, times = inputs(count), {slow: [], fast: []}
        one, two = slow(*given), fast(*given)
        for turn in range(repeats):
            for path in ((slow, fast), (fast, slow))[turn % 2]:
                began = time.perf_counter()
                path(*given)
                times[path].append(time.perf_counter() - began)
        row = found[str(count)] = {"baseline_s": statistics.median(times[slow]), "ours_s": statistics.median(times[fast])}
        row["time_ratio"] = row["baseline_s"] / row["ours_s"]
        row["max_abs_difference"], row["std_of_masks"] = (one - two).abs().max().item(), one.std().item()
        print(
            f"N = {count}: {row['time_ratio']:.2f} times as fast ({1000 * row['baseline_s']:.0f} to {1000 * row['ours_s']:.0f} ms); "
            f"masks differ by at most {row['max_abs_difference']:.1e}",
            flush=True,
        )
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, nargs="+", default=list(TARGETS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hold", choices=("ours", "baseline"), help="only run this path and print what the process held")
    said = parser.parse_args()
    torch.set_num_threads(said.threads)
    if said.hold:
        print(json.dumps(hold(said.hold, said.targets[0])))
        return
    found = compare(said.targets, said.repeats)
    for count, row in found.items():
        for which in ("baseline", "ours"):
            command = [sys.executable, __file__, "--hold", which, "--targets", count, "--threads", str(said.threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row.update({f"{which}_{key}": value for key, value in json.loads(done.stdout.splitlines()[-1]).items()})
        row["memory_ratio"], row["process_memory_ratio"] = (row[f"baseline_{what}_MiB"] / row[f"ours_{what}_MiB"] for what in ("path", "process"))
        print(
            f"N = {count}: 1/{row['memory_ratio']:.1f} of the memory ({row['baseline_path_MiB']:.0f} to {row['ours_path_MiB']:.0f} MiB); "
            f"of the whole process with its libraries 1/{row['process_memory_ratio']:.1f} "
            f"({row['baseline_process_MiB']:.0f} to {row['ours_process_MiB']:.0f} MiB)",
            flush=True,
        )
    machine = {"threads": said.threads, "torch": torch.__version__, "machine": platform.machine(), "repeats": said.repeats, "load": os.getloadavg()[0]}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"command": "python benchmarks/released_mask_path.py", **machine, "targets": found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
