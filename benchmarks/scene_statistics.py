"""Print what the procedural scenes of a level are like, and how fast they are made.

    python benchmarks/scene_statistics.py --level standard --scenes 500
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter, defaultdict

import cv2
import numpy as np

from geopix.data.scenes.catalogue import CLASSES, COLOURS, LEVELS
from geopix.data.scenes.dialogues import Spoken, talk
from geopix.data.scenes.records import Scene
from geopix.data.scenes.render import render
from geopix.data.scenes.source import DEFAULT_MIX

SMALL = 12
"""Pixels of an image of 128 x 128; the long side of a small target is shorter."""

_CUES = (
    ("relation", r" (left of|right of|above|below|nearest to|closest to|next to|to its) "),
    ("rank", r"\b(second|third)\b"),
    ("size", r"\b(largest|biggest|smallest|(large|small)(?! vehicle))\b"),
    ("edge", r"\b(left|right|top|bottom)most\b"),
    ("cell", r" (in|at|on) the (top|bottom|left|right|centre|middle)"),
)


def how(prompt: str) -> str:
    """Which way of telling a thing apart a prompt uses."""
    found = next((name for name, cue in _CUES if re.search(cue, prompt)), "")
    coloured = re.search(rf"\b({'|'.join(COLOURS)})\b", prompt) and found != "relation"
    return ("colour+" if coloured else "") + found if found else "colour" if coloured else "plain"


def class_union_iou(scene: Scene, said: Spoken) -> float:
    """IoU of the answer that draws everything of the true class."""
    target = scene.instances[said.targets[0][0]].mask
    union = np.logical_or.reduce([instance.mask for instance in scene.instances if instance.name == said.classes[0]])
    return float((target & union).sum() / union.sum())


def share(amounts: Counter[str]) -> str:
    total = max(sum(amounts.values()), 1)
    return ", ".join(f"{name} {100 * amount / total:.1f} %" for name, amount in amounts.most_common())


def mean(values: list[float] | list[bool]) -> float:
    return float(np.mean(values)) if values else float("nan")


def describe(pairs: list[tuple[Scene, list[Spoken]]], size: int) -> None:
    """Print the statistics of scenes with their dialogues."""
    limit = SMALL * size / 128
    said = [(scene, one) for scene, spoken in pairs for one in spoken]
    sides = {id(instance): max(instance.box[2] - instance.box[0], instance.box[3] - instance.box[1]) for scene, _ in pairs for instance in scene.instances}
    things = [instance for scene, _ in pairs for instance in scene.instances if not instance.distractor_only]
    asked = [scene.instances[target[0]] for scene, one in said for target in one.targets if len(target) == 1]
    singles = [(scene, one) for scene, one in said if one.task == "segment/single"]
    absent = [any(re.search(rf"\b{thing.name}", one.turns[0].prompt) for thing in scene.instances) for scene, one in said if one.task == "segment/absent"]
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for _, one in said:
        answers[one.task][one.turns[-1].answer] += 1
    turns = [turn for _, one in said for turn in one.turns]
    words = {word for turn in turns for word in re.findall(r"\w+", f"{turn.prompt} {turn.answer}")}
    multi = Counter(str(len(one.targets)) for _, one in said if one.task == "segment/multi")
    classes: Counter[str] = Counter(name for scene, _ in pairs for name in {instance.name for instance in scene.instances})

    print(f"instances per scene: median {np.median([len(scene.instances) for scene, _ in pairs]):.0f}")
    print(f"never targets: {100 * mean([instance.distractor_only for scene, _ in pairs for instance in scene.instances]):.1f} % of the instances")
    print(f"under {SMALL} px at 128: {100 * mean([sides[id(thing)] < limit for thing in asked]):.1f} % of the targets, "
          f"{100 * mean([sides[id(thing)] < limit for thing in things]):.1f} % of the things")  # fmt: skip
    print(f"single references that need more than the class name: {100 * mean([one.needs_more for _, one in singles]):.1f} % of {len(singles)}")
    print(f"class-union IoU over single references: {mean([class_union_iou(scene, one) for scene, one in singles]):.3f}")
    print(f"absent questions that name a present class: {100 * mean(absent):.1f} % of {len(absent)}")
    for task in ("vqa/presence", "vqa/compare", "vqa/count", "vqa/colour"):
        word, most = answers[task].most_common(1)[0] if answers[task] else ("-", 0)
        print(f"{task} majority answer: {word!r} {100 * most / max(sum(answers[task].values()), 1):.1f} %")
    print(f"tasks: {share(Counter(one.task for _, one in said))}")
    print(f"ways to tell apart, segment/single: {share(Counter(how(one.turns[0].prompt) for _, one in singles))}")
    print(f"targets per segment/multi: {share(multi)}")
    print(f"settings: {share(Counter(scene.setting for scene, _ in pairs))}")
    print("scenes with a class: " + ", ".join(f"{name} {classes[name] / len(pairs):.2f}" for name in CLASSES))
    lengths = [np.percentile([len(text.split()) for text in texts], (50, 95, 100)) for texts in ([t.prompt for t in turns], [t.answer for t in turns])]
    for name, (half, most, longest) in zip(("prompt", "answer"), lengths, strict=True):
        print(f"words per {name}: median {half:.0f}, 95 % up to {most:.0f}, longest {longest:.0f}")
    print(f"vocabulary: {len(words)} words")


def main() -> None:
    """Draw scenes, time them, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", default="standard", choices=sorted(LEVELS))
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    render(arguments.seed, "warm", 0, level=LEVELS[arguments.level], size=arguments.size)  # builds the noise tiles once
    pairs: list[tuple[Scene, list[Spoken]]] = []
    drawing = talking = 0.0
    for index in range(arguments.scenes):
        started = time.process_time()
        scene = render(arguments.seed, "train", index, level=LEVELS[arguments.level], size=arguments.size)
        drawn = time.process_time()
        spoken = talk(scene, np.random.default_rng([arguments.seed, index]), DEFAULT_MIX, 8)
        talking += time.process_time() - drawn
        drawing += drawn - started
        pairs.append((scene, spoken))
    print(f"{arguments.scenes} scenes at {arguments.level!r}, {arguments.size} px")
    describe(pairs, arguments.size)
    print(f"images per second of one core: {arguments.scenes / (drawing + talking):.0f} "
          f"(render {1e3 * drawing / arguments.scenes:.2f} ms, 8 dialogues {1e3 * talking / arguments.scenes:.2f} ms)")  # fmt: skip


if __name__ == "__main__":
    main()
