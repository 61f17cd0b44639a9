"""An independent reading of what ``geopix data build`` writes, evaluated on what is true of a scene; it shares no code with the builder.

Everything is read plainly, without margins: the first of the left third, the largest, what lies to the left. Where people read a word in two ways,
both readings must select the same.
"""

import math
import re
from dataclasses import dataclass

import cv2
import numpy as np

from geopix.data.scenes.records import Instance, Scene

COLOURS = {"white", "grey", "black", "red", "orange", "yellow", "green", "blue", "brown", "beige"}


@dataclass
class Truth:
    """A scene as the checker sees it: instance ids are places in ``scene.instances``."""

    scene: Scene

    @property
    def size(self) -> int:
        return self.scene.image.shape[0]

    def thing(self, index: int) -> Instance:
        return self.scene.instances[index]

    def select(self, expression: dict, reading: int) -> set[int]:
        """Who meets an expression by one of two readings."""
        pool = {index for index, thing in enumerate(self.scene.instances) if thing.name == expression["class"]}
        ranking = ("size", "edge", "rank", "nearest", "top", "cluster")
        for condition in sorted(expression["conditions"], key=lambda said: said["kind"] in ranking):
            pool = self.meet(pool, expression["class"], condition, reading)
        return pool

    def meet(self, pool: set[int], name: str, said: dict, reading: int) -> set[int]:
        kind, word, value = said["kind"], said.get("word", ""), said.get("value", 0)
        things = self.scene.instances
        if kind == "colour":
            return {i for i in pool if (self.looks(i, word) if things[i].colour is None else things[i].colour == word)}
        if kind == "cell":
            return {i for i in pool if self.in_cell(i, word, reading)}
        if kind == "orientation":
            return {i for i in pool if self.lies(i) == word}
        if kind == "longer":
            return {i for i in pool if things[i].length > value}
        if kind == "shorter":
            return {i for i in pool if things[i].length < value}
        if kind == "alone":
            others = [i for i, thing in enumerate(things) if thing.name == name]
            return {i for i in pool if min((self.gap(i, j) for j in others if j != i), default=0) > 0.16}
        if kind in ("size", "top", "edge", "rank"):
            key, backwards = self.order(word, reading, pool)
            ranked = sorted(pool, key=key, reverse=backwards)
            return set(ranked[:value]) if kind == "top" else set(ranked[value : value + 1] if kind == "rank" else ranked[:1])
        if kind == "cluster":
            return set().union(*[group for group in self.clusters(pool) if len(group) == value] or [set()])
        (anchor,) = self.select(said["anchor"], reading)
        pool = pool - {anchor}
        if kind == "beside":
            return {i for i in pool if self.gap(i, anchor) < 0.105}
        if kind == "nearest":
            return {min(pool, key=lambda i: self.gap(i, anchor) if reading else self.apart(i, anchor))}
        assert kind == "direction", kind
        return {i for i in pool if self.towards(i, anchor, word, strictly=reading == 0)}

    def looks(self, index: int, word: str) -> bool:
        """Whether a fifth of a thing that was painted in several colours has about this one, by hue and saturation."""
        pixels = np.uint8(self.scene.image[self.thing(index).mask])[None]
        hue, saturation, value = (plane[0].astype(int) for plane in cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)))
        if word in ("white", "grey", "black"):
            low, high = {"white": (190, 256), "grey": (90, 200), "black": (0, 80)}[word]
            return bool(((saturation < 60) & (value >= low) & (value < high)).mean() > 0.2)
        low, high = {"red": (0, 8), "orange": (6, 20), "brown": (6, 20), "beige": (10, 28), "yellow": (20, 33), "green": (33, 85), "blue": (95, 130)}[word]
        return bool(((saturation > 70) & (hue >= low) & (hue <= high)).mean() > 0.2)

    def in_cell(self, index: int, word: str, reading: int) -> bool:
        """In thirds, or in halves, where the centre is the half in the middle."""
        x, y = (side / self.size for side in self.thing(index).centre)
        near, far = (1 / 3, 2 / 3) if reading == 0 else (1 / 2, 1 / 2)
        if word == "centre":
            return all((1 / 3, 1 / 4)[reading] <= value <= (2 / 3, 3 / 4)[reading] for value in (x, y))
        return all({"left": x < near, "right": x > far, "top": y < near, "bottom": y > far}[part] for part in word.split())

    def lies(self, index: int) -> str | None:
        thing = self.thing(index)
        if thing.length < 1.5 * thing.width:
            return None
        off = min(thing.heading % 180, 180 - thing.heading % 180)
        return "horizontal" if off < 22.5 else "vertical" if off > 67.5 else "diagonal"

    def order(self, word: str, reading: int, pool: set[int]):
        if word in ("largest", "large", "smallest", "small"):
            whole = all(self.thing(i).visible > 0.97 for i in pool)

            def extent(i: int) -> float:
                return self.thing(i).length * self.thing(i).width if reading and whole else float(self.thing(i).mask.sum())

            return extent, word in ("largest", "large")
        axis = 0 if word.endswith(("left", "right", "leftmost", "rightmost")) else 1
        return (lambda i: self.thing(i).centre[axis]), word.endswith(("right", "rightmost", "bottom", "bottommost"))

    def towards(self, index: int, anchor: int, word: str, *, strictly: bool) -> bool:
        dx, dy = (a - b for a, b in zip(self.thing(index).centre, self.thing(anchor).centre, strict=True))
        along, across = {"left of": (-dx, dy), "right of": (dx, dy), "above": (-dy, dx), "below": (dy, dx)}[word]
        return along > (abs(across) if strictly else 0)

    def apart(self, one: int, two: int) -> float:
        return math.dist(self.thing(one).centre, self.thing(two).centre)

    def gap(self, one: int, two: int) -> float:
        a, b = self.thing(one).box, self.thing(two).box
        return math.hypot(max(a[0] - b[2], b[0] - a[2], 0), max(a[1] - b[3], b[1] - a[3], 0)) / self.size

    def clusters(self, pool: set[int]) -> list[set[int]]:
        left, found = set(pool), []
        while left:
            group, edge = set(), {left.pop()}
            while edge:
                group |= edge
                edge = {j for j in left for i in edge if self.gap(i, j) < 0.105}
                left -= edge
            found.append(group)
        return found


def colours_said(expression: dict) -> list[str]:
    """Colour words that an expression holds, anchors included."""
    found = []
    for said in expression["conditions"]:
        found += [said["word"]] if said["kind"] == "colour" else []
        found += colours_said(said["anchor"]) if "anchor" in said else []
    return found


def mistakes(record: dict, scene: Scene) -> list[str]:
    """What is wrong in a record about a scene; and every phrase must say in words what its expression says as data."""
    truth, found = Truth(scene), []
    for dialogue in record["dialogues"]:
        prompts = " ".join(turn["prompt"] for turn in dialogue["turns"])
        proofs = dialogue["provenance"]["sentences"]
        for proof in [*proofs, *[one["subject"] for one in proofs if "subject" in one]]:
            if "expression" not in proof:
                continue
            for reading in (0, 1):
                selected = truth.select(proof["expression"], reading)
                said = f"{record['key']}: {proof['text']!r} selects {sorted(selected)}"
                if dialogue["task"] == "vqa/presence":
                    found += [f"{said}, answered {turn['answer']}" for turn in dialogue["turns"] if bool(selected) != (turn["answer"] == "yes")]
                elif selected != set(proof["selects"]):
                    found.append(f"{said} and not {proof['selects']} ({proof['type']}, reading {reading})")
            if dialogue["provenance"]["rule"] != "detailed caption" and proof["text"] not in prompts:
                found.append(f"{record['key']}: {proof['text']!r} is not in {prompts!r}")
            said = [word for word in re.findall(r"\w+", proof["text"]) if word in COLOURS]
            if sorted(said) != sorted(colours_said(proof["expression"])) and "one" not in proof["text"].split():
                found.append(f"{record['key']}: {proof['text']!r} does not say {colours_said(proof['expression'])}")
        found += [f"{record['key']}: {problem}" for problem in answers(dialogue, truth)]
    return found


def answers(dialogue: dict, truth: Truth) -> list[str]:
    """What is wrong with answers in words, boxes and targets."""
    found = []
    proofs, turns, rule = dialogue["provenance"]["sentences"], dialogue["turns"], dialogue["provenance"]["rule"]
    drawn = [set(target) for target in dialogue["targets"]]
    if rule in ("single", "multi", "group") and drawn != [set(proof["selects"]) for proof in proofs]:
        found.append(f"targets {drawn} are not what was proved")
    if rule in ("count", "follow-up: counted") and int(turns[0]["answer"]) != len(truth.select(proofs[0]["expression"], 0)):
        found.append(f"{turns[0]} counts wrongly")
    if rule == "compare":
        more, fewer = (len(truth.select(proof["expression"], 0)) for proof in proofs)
        if (more > fewer) != (turns[0]["answer"] == "yes"):
            found.append(f"{turns[0]} compares {more} with {fewer}")
    if rule == "colour":
        index = min(truth.select(proofs[0]["expression"], 0))
        if truth.thing(index).colour not in (turns[0]["answer"], None):
            found.append(f"{turns[0]}: it is {truth.thing(index).colour}")
    for turn in turns:
        if box := re.search(r"\{<(\d+)><(\d+)><(\d+)><(\d+)>\}", turn["answer"]):
            index = min(truth.select(proofs[0]["expression"], 0))
            true = [100 * side / truth.size for side in truth.thing(index).box]
            if max(abs(int(said) - side) for said, side in zip(box.groups(), true, strict=True)) > 1:
                found.append(f"{turn}: the box is {true}")
    for proof in proofs:
        if proof.get("rule") == "amounts":
            for name, said in proof["counts"].items():
                if said["count"] != sum(thing.name == name for thing in truth.scene.instances):
                    found.append(f"{name}: {said}")
        if proof.get("rule") == "colours":
            true = [thing.colour for thing in truth.scene.instances if thing.name == proof["class"]]
            if any(true.count(word) != count for word, count in proof["colours"].items()) and None not in true:
                found.append(f"{proof}: {true}")
        if proof.get("rule") == "length":
            (index,) = proof["subject"]["selects"]
            if not 0.75 < proof["metres"] / truth.thing(index).length < 1.25:
                found.append(f"{proof['text']}: {truth.thing(index).length}")
    return found
