"""How much evidence a mask should need: refusals and masks on validation scenes for several values of MultiScaleDecoder's ``evidence``.

The text alone decides too often to draw. Each value empties the masks whose locator stays below it; N-acc rises, T-acc and gIoU fall.

    python benchmarks/choose_evidence.py runs/standard/checkpoints/last.ckpt
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import torch

from geopix.data.scenes import Scenes
from geopix.data.source import collate
from geopix.evaluation.outcome import own_truth
from geopix.evaluation.scores import own_masks
from geopix.metrics.masks import MaskIoU, Refusal
from geopix.metrics.pixels import drew_something, score_dialogue
from geopix.task import GeoPixTask
from geopix.types import Batch

VALUES = (float("-inf"), 1.5, 2.0, 2.25, 2.5, 2.75, 3.0)


@torch.no_grad()
def count(task: GeoPixTask, batch: Batch, refusals: Mapping[float, Refusal], singles: Mapping[float, MaskIoU]) -> None:
    """Add the answers to a batch to the counts of each value."""
    prediction = task.answer(batch)
    assert prediction.drawing.where is not None
    evidence, owners = prediction.drawing.where.flatten(1).amax(1), prediction.drawing.dialogue_index
    for row, (drawn, truth) in enumerate(zip(own_masks(batch, prediction), own_truth(batch, batch.truth), strict=True)):
        if not batch.tasks[row].startswith("segment"):
            continue
        found = evidence[owners == row].tolist()
        for value in VALUES:
            left = [mask & (each >= value) for mask, each in zip(drawn, found, strict=True)]
            refusals[value].update(torch.tensor([bool(truth)]), torch.tensor([drew_something(left)]))
            if batch.tasks[row] == "segment/single":
                singles[value].update(*score_dialogue(left, truth))


def main() -> None:
    """Answer once, then count with the masks that each value leaves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="of one model; several seeds are counted together")
    parser.add_argument("--scenes", type=int, default=300)
    said = parser.parse_args()
    source = Scenes("standard", "val", count=said.scenes, dialogues=10)
    refusals, singles = {value: Refusal() for value in VALUES}, {value: MaskIoU() for value in VALUES}
    for checkpoint in said.checkpoints:
        task = GeoPixTask.load_from_checkpoint(checkpoint, map_location="cpu").eval()
        assert task.net.decoder is not None
        task.net.decoder.evidence = None
        for start in range(0, said.scenes, 30):
            count(task, collate([source.sample(index, truth=True) for index in range(start, min(start + 30, said.scenes))]), refusals, singles)
    print(f"{said.scenes} standard validation scenes, {len(said.checkpoints)} trainings\nevidence  N-acc  T-acc  single gIoU")
    for value in VALUES:
        scores = refusals[value].compute()
        print(f"{value:>8}  {scores['n_acc']:.3f}  {scores['t_acc']:.3f}  {singles[value].compute()['giou']:.3f}")


if __name__ == "__main__":
    main()
