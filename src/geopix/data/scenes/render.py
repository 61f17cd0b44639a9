"""Procedural overhead images with exact masks, the same for the same (seed, split, index, level)."""

from __future__ import annotations

import math
import zlib
from random import Random

import cv2
import numpy as np
from jaxtyping import Int16, UInt8
from numpy import ndarray

from geopix.data.scenes.catalogue import CLASSES, COLOURS, GROUNDS, KINDS, LEVELS, RGB, Level
from geopix.data.scenes.compose import Thing, View, choose
from geopix.data.scenes.paint import SHIFT, TILE, crop, draw, extrude, mix, project, sensor, shade, tiles, tint
from geopix.data.scenes.places import Plan
from geopix.data.scenes.records import Instance, Scene
from geopix.data.scenes.settings import SETTINGS

__all__ = ["CLASSES", "COLOURS", "LEVELS", "Level", "render"]

GROUND_INDEX = {name: index for index, name in enumerate(GROUNDS)}
THING = len(GROUNDS)
TEXTURES = np.zeros(256, np.uint8)
TEXTURES[: THING + 1] = [ground.texture for ground in GROUNDS.values()] + [2]
GRAINS = np.zeros(256, np.float32)
GRAINS[: THING + 1] = np.array([ground.grain for ground in GROUNDS.values()] + [2.5]) / 42
SHADED = frozenset(("small vehicle", "large vehicle", "building", "swimming pool", "tennis court", "basketball court"))
"""Classes beside which a tree may grow."""
GREEN = frozenset(GROUND_INDEX[name] for name in ("grass", "dry grass", "lawn", "soil"))
CROWNS: tuple[RGB, ...] = ((52, 82, 40), (62, 92, 44), (44, 72, 42), (74, 98, 50))


def render(seed: int, split: str, index: int, *, level: Level, size: int = 128) -> Scene:
    """Draw one scene.

    Args:
        seed, split, index: name the scene; equal names give equal scenes.
        level: how hard it is, such as ``LEVELS["standard"]``.
        size: side of the image in pixels. It shows the same ground at any size, with a finer or coarser GSD, and as many things
            (not always the very same: what just fits may differ).

    Raises:
        ValueError: for a size below 32.
    """
    if size < 32:
        raise ValueError(f"a scene needs a size of at least 32 pixels; found {size}. Choose 64 or more for things to be recognisable.")
    names = (seed & 0xFFFFFFFF, zlib.crc32(split.encode()), index & 0xFFFFFFFF, zlib.crc32(repr(level).encode()))
    random = Random(int.from_bytes(np.random.SeedSequence(names).generate_state(4).tobytes(), "little"))
    setting = random.choices(list(SETTINGS), [kind.weight for kind in SETTINGS.values()])[0]
    extent = random.uniform(*SETTINGS[setting].extents) * random.uniform(*level.zoom)
    plan = Plan(random, extent, setting)
    SETTINGS[setting].lay(plan)
    turn = random.randrange(4) * math.pi / 2 + random.gauss(0, 0.06) if random.random() < 0.4 else random.uniform(0, 2 * math.pi)
    azimuth, reach = random.uniform(0, 2 * math.pi), random.uniform(0.35, 0.9)
    gsd = extent / size
    view = View(size, 2 if size < 512 else 1, gsd, turn, (math.cos(azimuth) * reach / gsd, math.sin(azimuth) * reach / gsd))
    paints = {name: tint(ground.colour, 1 + random.uniform(-1, 1) * ground.spread / 100) for name, ground in GROUNDS.items()}
    things = choose(plan, view, level, paints)
    canvas, ground = _lay_ground(plan, view, paints)
    ids = _paint(canvas, ground, plan, view, level, things)
    image = _develop(canvas, ground, ids, view, level, random)
    return Scene(image, _record(things, ids), setting, gsd)


def _lay_ground(plan: Plan, view: View, paints: dict[str, RGB]) -> tuple[UInt8[ndarray, "H W 3"], UInt8[ndarray, "H W"]]:
    """The canvas with grounds and their markings, and the index of the ground at each of its pixels."""
    side = view.size * view.scale
    ground = np.full((side, side), GROUND_INDEX[plan.base], np.uint8)
    for name, points in plan.areas:
        cv2.fillPoly(ground, [view.fixed(points, view.scale)], GROUND_INDEX[name], cv2.LINE_8, SHIFT)
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(GROUNDS), 0] = [paints[name] for name in GROUNDS]
    canvas = cv2.LUT(cv2.merge((ground, ground, ground)), table)
    lines: dict[RGB, list[ndarray]] = {}
    for colour, points in plan.marks:
        lines.setdefault(colour, []).extend(view.fixed(points, view.scale))
    thickness = 0.22 / view.gsd * view.scale
    for colour, runs in lines.items():
        faint = mix(paints["asphalt"], colour, min(1.0, max(0.3, thickness)))
        cv2.polylines(canvas, runs, False, faint, max(1, round(thickness)), cv2.LINE_8, SHIFT)
    return canvas, ground


def _shadows(canvas: UInt8[ndarray, "H W 3"], things: list[Thing], view: View) -> None:
    shapes = []
    for thing in things:
        shift = (view.sun[0] * thing.height, view.sun[1] * thing.height)
        if math.hypot(*shift) * view.scale < 0.7:
            continue
        bases = [project(shape, thing.pose, view.scale) for shape in thing.look.outline]
        if thing.name in ("plane", "helicopter"):
            shapes += [base + (np.array(shift) * (view.scale << SHIFT)).astype(np.int32) for base in bases]
        else:
            shapes += [extrude(base, shift, view.scale) for base in bases]
    if shapes:
        shade(canvas, shapes, 0.52)


def _paint(
    canvas: UInt8[ndarray, "H W 3"], ground: UInt8[ndarray, "H W"], plan: Plan, view: View, level: Level, things: list[Thing]
) -> Int16[ndarray, "h w"]:
    """Paint everything from the ground up; returns the index + 1 of the thing seen at each pixel, 0 for none."""
    ids = np.zeros((view.size, view.size), np.int16)
    for thing in things:
        ids[thing.window][thing.footprint] = 1
    trees = _plant(plan, view, level, ground, ids) + _overhang(things, view, level, plan.random)

    def put(low: int, high: int) -> None:
        for number, thing in enumerate(things, 1):
            if low <= KINDS[thing.name].layer <= high:
                draw(canvas, thing.look.parts, thing.pose, view.scale)
                ids[thing.window][thing.footprint] = number

    put(0, 0)
    for x, y, radius in trees:
        height = radius * 1.1
        shift = (view.sun[0] * height * view.gsd, view.sun[1] * height * view.gsd)
        centre = (int((x + shift[0]) * view.scale), int((y + shift[1]) * view.scale))
        cv2.circle(canvas, centre, max(1, int(radius * view.scale)), (34, 44, 34), -1)
    _shadows(canvas, [thing for thing in things if KINDS[thing.name].layer in (0, 1, 2, 4) and thing.height > 0], view)
    put(1, 2)
    _shadows(canvas, [thing for thing in things if KINDS[thing.name].layer == 3], view)
    put(3, 4)
    for x, y, radius in trees:
        _grow(canvas, ids, x, y, radius, view, plan.random)
    return ids


def _plant(plan: Plan, view: View, level: Level, ground: UInt8[ndarray, "H W"], taken: Int16[ndarray, "h w"]) -> list[tuple[float, float, float]]:
    """Trees in pixels: those that stand on green and hide nothing, or something where the level allows."""
    kept = []
    for x, y, radius in plan.random.sample(plan.trees, min(len(plan.trees), int(36 * level.trees))):
        px, py = view.point(x, y)
        size = max(radius / view.gsd, 1.2)
        row, column = int(py), int(px)
        if not (0 <= row < view.size and 0 <= column < view.size) or int(ground[row * view.scale, column * view.scale]) not in GREEN:
            continue
        if taken[row, column]:
            continue
        near = taken[max(0, int(py - size)) : int(py + size) + 2, max(0, int(px - size)) : int(px + size) + 2]
        if near.any() and plan.random.random() > level.canopy:
            continue
        kept.append((px, py, size))
    return kept


def _overhang(things: list[Thing], view: View, level: Level, random: Random) -> list[tuple[float, float, float]]:
    """Trees in pixels whose canopy hides a part of a thing's long side."""
    trees = []
    for thing in things:
        if thing.name in SHADED and random.random() < level.canopy / 4:
            radius = min(random.uniform(1.6, 3.4) / view.gsd, 0.4 * thing.pose.length)
            along, across = random.uniform(-0.4, 0.4) * thing.pose.length, thing.pose.width / 2 + radius * random.uniform(0.1, 0.6)
            cos, sin = math.cos(thing.pose.angle), math.sin(thing.pose.angle)
            across *= random.choice((-1, 1))
            trees.append((thing.pose.x + along * cos - across * sin, thing.pose.y + along * sin + across * cos, max(radius, 1.2)))
    return trees


def _grow(canvas: UInt8[ndarray, "H W 3"], ids: Int16[ndarray, "h w"], x: float, y: float, radius: float, view: View, random: Random) -> None:
    """One canopy: a dark crown with lit tufts; it hides what lies below."""
    one = 1 << SHIFT
    colour = tint(random.choice(CROWNS), random.uniform(0.9, 1.12))
    norm = math.hypot(*view.sun) or 1.0
    lit = (-view.sun[0] / norm, -view.sun[1] / norm)

    def disc(target: ndarray, dx: float, dy: float, part: float, paint: RGB | int, scale: int) -> None:
        centre = (int(((x + dx * radius) * scale - 0.5) * one), int(((y + dy * radius) * scale - 0.5) * one))
        cv2.circle(target, centre, int(max(radius * part * scale - 0.5, 0.3) * one), paint, -1, cv2.LINE_8, SHIFT)

    tufts = [(0.0, 0.0, 0.86)] + [(random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5), random.uniform(0.4, 0.55)) for _ in range(3)]
    for dx, dy, part in tufts:
        disc(canvas, dx, dy, part, colour, view.scale)
        disc(ids, dx, dy, part, 0, 1)
    for dx, dy, part in tufts:
        disc(canvas, dx * 0.8 + lit[0] * 0.25, dy * 0.8 + lit[1] * 0.25, part * 0.5, tint(colour, 1.25 + dx * 0.2), view.scale)


def _develop(
    canvas: UInt8[ndarray, "H W 3"], ground: UInt8[ndarray, "H W"], ids: Int16[ndarray, "h w"], view: View, level: Level, random: Random
) -> UInt8[ndarray, "h w 3"]:
    """The image that a sensor makes of the canvas: its resolution, the grounds' textures, haze and noise."""
    size = view.size
    image = canvas if view.scale == 1 else cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    kinds = np.where(ids > 0, np.uint8(THING), ground[:: view.scale, :: view.scale])
    free = max(TILE - size, 0) + 1
    window = crop(tiles(), random.randrange(free), random.randrange(free), size)
    pick = cv2.LUT(kinds, TEXTURES).ravel() + np.arange(0, 4 * size * size, 4)
    grain = cv2.LUT(kinds, GRAINS) * window.ravel()[pick].reshape(size, size)
    contrast = 1 - random.uniform(0, level.haze)
    light = contrast * random.uniform(0.92, 1.06)
    cast = np.zeros((3, 4))
    for band in range(3):
        cast[band, band], cast[band, 3] = light * random.uniform(0.97, 1.03), (1 - contrast) * 165
    values = cv2.transform(cv2.add(image, cv2.merge((grain, grain, grain)), dtype=cv2.CV_32F), cast)
    noise = crop(sensor(), random.randrange(free), random.randrange(free), size)
    return cv2.addWeighted(values, 1.0, noise, level.noise, 0.0, dtype=cv2.CV_8U)


def _record(things: list[Thing], ids: Int16[ndarray, "h w"]) -> tuple[Instance, ...]:
    """What is truly seen of each thing."""
    instances = []
    for number, thing in enumerate(things, 1):
        seen = ids[thing.window] == number
        x, y, width, height = cv2.boundingRect(seen.view(np.uint8))
        if not width:
            continue
        area = int(np.count_nonzero(seen))
        mask = np.zeros(ids.shape, bool)
        mask[thing.window] = seen
        left, top = thing.window[1].start + x, thing.window[0].start + y
        visible = min(1.0, area / thing.whole)
        instances.append(
            Instance(
                name=thing.name,
                colour=thing.colour,
                box=(left, top, left + width, top + height),
                mask=mask,
                length=thing.length,
                width=thing.width,
                heading=-math.degrees(thing.pose.angle) % 180,
                visible=visible,
                truncated=int(np.count_nonzero(thing.footprint)) < thing.whole,
                distractor_only=visible < 0.4 or area < 6,
            )
        )
    return tuple(instances)

