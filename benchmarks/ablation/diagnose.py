"""What a memory of classes could win at all, and what one that was trained does: on validation scenes, for questions that name one thing.

    python -m benchmarks.ablation.diagnose runs/standard/checkpoints/last.ckpt [--level standard] [--scenes 300]

Each mask is laid over everything in its scene. Where it fits the asked thing best, what is lost is outline; where it fits another thing of the same class,
the choice among them was wrong, which no knowledge of classes can mend; where it fits a thing of another class, or none, it can. The bounds say how far
repairing each would carry. Then the memory is asked what it reads: how well it infers the class, how much it changes the features, and what becomes of the
masks when its change is left out, or it reads the slots of the named class, or of a wrong one.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from geopix.data.scenes import Scenes
from geopix.data.source import collate
from geopix.evaluation.outcome import own_truth
from geopix.evaluation.protocols import ProtocolName
from geopix.evaluation.scores import own_masks
from geopix.task import GeoPixTask
from geopix.types import Batch

CAUSES = ("the asked thing", "another of its class", "a thing of another class", "no thing", "nothing drawn")
TOUCHED = 0.1
"""IoU from which on a mask is taken to mean a thing."""


@dataclass(frozen=True)
class Drawn:
    """One mask that was asked for: what it fits, its IoU, and its IoU after each repair."""

    cause: str
    iou: float
    outline: float
    pixels: float
    chosen: float


def iou(first: Bool[Tensor, "h w"], second: Bool[Tensor, "h w"]) -> float:
    """Of two masks; 1 where both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def judge(drawn: Bool[Tensor, "h w"], truth: Bool[Tensor, "h w"], things: list[tuple[str, Bool[Tensor, "h w"]]]) -> Drawn:
    """What a mask fits among all things of its scene."""
    plain = iou(drawn, truth)
    if not drawn.any():
        return Drawn("nothing drawn", plain, plain, plain, plain)
    target = max(range(len(things)), key=lambda index: iou(things[index][1], truth))
    name = things[target][0]
    fits = [iou(drawn, mask) for _, mask in things]
    best = max(range(len(things)), key=lambda index: (fits[index], index == target))
    same = [mask for other, mask in things if other == name]
    nearest = max(same, key=lambda mask: (iou(drawn, mask), torch.equal(mask, truth)))
    chosen = iou(nearest, truth) if iou(drawn, nearest) > 0 else 0.0
    pixels = iou(drawn & torch.stack(same).any(0), truth)
    if fits[best] < TOUCHED:
        return Drawn("no thing", plain, plain, pixels, chosen)
    cause = "the asked thing" if best == target else "another of its class" if things[best][0] == name else "a thing of another class"
    return Drawn(cause, plain, iou(things[best][1], truth), pixels, chosen)


def answered(task: GeoPixTask, source: Scenes) -> Iterator[tuple[Batch, list[tuple[int, Bool[Tensor, "h w"], Bool[Tensor, "h w"]]]]]:
    """Batch by batch: the scene, the mask that was drawn and the true one, for every question about one thing."""
    total = source.count or 0
    for start in range(0, total, 30):
        scenes = range(start, min(start + 30, total))
        batch = collate([source.sample(index, truth=True) for index in scenes])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = task.answer(batch)
        rows = zip(own_masks(batch, prediction), own_truth(batch, batch.truth), batch.image_index.tolist(), strict=True)
        yield batch, [(scenes[image], drawn[0] if drawn else torch.zeros_like(truth[0]), truth[0]) for drawn, truth, image in rows]


def errors(task: GeoPixTask, source: Scenes) -> list[Drawn]:
    """What became of each question."""
    found: list[Drawn] = []
    for _, rows in answered(task, source):
        for index, drawn, truth in rows:
            things = [(instance.name, torch.from_numpy(instance.mask)) for instance in source.scene(index).instances]
            found.append(judge(drawn, truth, things))
    return found


def giou(task: GeoPixTask, source: Scenes, protocol: ProtocolName = "generate") -> float:
    """Mean IoU under a protocol."""
    before, task.protocol = task.protocol, protocol
    ious = [iou(drawn, truth) for _, rows in answered(task, source) for _, drawn, truth in rows]
    task.protocol = before
    return sum(ious) / len(ious)


@contextmanager
def watched(task: GeoPixTask, change: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Within, what the memory returns is ``change(features of each mask's image, what it returned)``."""
    memory = task.net.memory
    assert memory is not None
    hook = memory.register_forward_hook(lambda _, given, returned: change(given[0].index_select(0, given[1]), returned))
    yield
    hook.remove()


def inferred(task: GeoPixTask, source: Scenes) -> float:
    """Share of the true answers' prompts from which the memory infers the right class; its vocabulary must hold some."""
    right = Counter[bool]()
    for start in range(0, source.count or 0, 30):
        batch = collate([source.sample(index, truth=True) for index in range(start, min(start + 30, source.count or 0))])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            output = task.net(batch)
        assert output.drawing.class_logits is not None
        right.update((output.drawing.class_logits.argmax(1) == output.class_ids).tolist())
    return right[True] / right.total()


def tell_errors(found: list[Drawn]) -> None:
    """What the masks fit, and how far each repair would carry."""
    count = len(found)
    print("the mask fits                share  lost gIoU")
    for cause in CAUSES:
        those = [each for each in found if each.cause == cause]
        print(f"{cause:<27}  {len(those) / count:>5.1%}  {sum(1 - each.iou for each in those) / count:>9.3f}")
    repairs = {
        "nothing": [each.iou for each in found],
        "outlines, of whatever thing the mask fits": [each.outline for each in found],
        "classes, pixel by pixel: all outside the class removed": [each.pixels for each in found],
        "classes and outlines: the best fit within the class": [each.chosen for each in found],
    }
    print(f"\n{'made perfect':<55}  gIoU")
    for name, ious in repairs.items():
        print(f"{name:<55}  {sum(ious) / count:.3f}")


def tell_reading(task: GeoPixTask, source: Scenes) -> None:
    """What the memory reads, and what the masks are with other readings."""
    shares: list[float] = []

    def note(before: Tensor, after: Tensor) -> Tensor:
        shares.append(float((after.float() - before.float()).norm() / before.float().norm()))
        return after

    readings = {}
    with watched(task, note):
        readings["class unknown"] = giou(task, source)
    if task.net.classes:
        readings["class named"] = giou(task, source, "generate_named")
        readings["class misnamed"] = giou(task, source, "generate_misnamed")
    with watched(task, lambda before, _: before):
        readings["its change left out"] = giou(task, source)
    infers = f"infers the class of {inferred(task, source):.1%} of the prompts" if task.net.classes else "has no classes"
    print(f"\n{type(task.net.memory).__name__} {infers} and changes the features by {sum(shares) / len(shares):.1%} of their norm")
    print(f"\n{'the memory reads':<20}  gIoU")
    for name, value in readings.items():
        print(f"{name:<20}  {value:.3f}")


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--level", default="standard", choices=("easy", "standard", "hard"))
    parser.add_argument("--scenes", type=int, default=300)
    said = parser.parse_args()
    task = GeoPixTask.load_from_checkpoint(said.checkpoint, map_location="cpu").eval()
    source = Scenes(said.level, "val", count=said.scenes, dialogues=4, mix={"segment/single": 1.0})
    found = errors(task, source)
    print(f"{said.checkpoint}: {len(found)} questions about one thing in {said.scenes} {said.level} validation scenes\n")
    tell_errors(found)
    if task.net.memory is not None:
        tell_reading(task, source)


if __name__ == "__main__":
    main()
