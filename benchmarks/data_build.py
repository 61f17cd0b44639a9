"""How many images a second `geopix data build` describes: scenes of 512 px with 20 instances each, PNG and RLE in, dialogues with proofs out, no rewriting.

    python benchmarks/data_build.py

Only the building is timed: reading, measuring, proving, writing, and starting the worker processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from geopix.data.build.compose import Choices
from geopix.data.build.work import run
from geopix.data.records import Record, instance, write_records
from geopix.data.scenes.catalogue import LEVELS
from geopix.data.scenes.render import render
from geopix.rle import encode_rle

RESULTS = Path(__file__).parent / "results" / "costs" / "data_build.json"


def inputs(folder: Path, images: int, size: int, instances: int, distinct: int) -> Path:
    """Records of scenes that hold at least so many things, of which the first are kept; a scene is used again under another key."""
    level = replace(LEVELS["hard"], count=(instances + 4, instances + 8))
    made: list[Record] = []
    index = 0
    while len(made) < distinct:
        scene = render(0, "benchmark", index, level=level, size=size)
        index += 1
        if len(scene.instances) < instances:
            continue
        cv2.imwrite(str(folder / f"{len(made)}.png"), scene.image[..., ::-1])
        things = [instance(number, dict(encode_rle(torch.from_numpy(one.mask))), of_class=one.name) for number, one in enumerate(scene.instances[:instances])]
        made.append({"image": f"{len(made)}.png", "gsd": round(scene.gsd, 5), "instances": things, "dialogues": []})
    path = folder / "records.jsonl"
    write_records(path, ({**made[number % distinct], "key": f"{number:06d}"} for number in range(images)))
    return path


def main() -> None:
    """Time it, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=50)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    said = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = inputs(Path(folder), said.images, said.size, said.instances, said.distinct)
        cpu = time.process_time()
        began = time.perf_counter()
        sheet = run(path, Path(folder) / "built.jsonl", Choices(), workers=said.workers)
        seconds = time.perf_counter() - began
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(one.ru_utime + one.ru_stime for one in used) - cpu
        size = (Path(folder) / "built.jsonl").stat().st_size
    types = Counter(sheet["expression"])
    result = {
        "images": said.images, "size": said.size, "instances": said.instances, "workers": said.workers, "seconds": round(seconds, 2),
        "images_per_second": round(said.images / seconds, 1), "cpu_ms_per_image": round(1000 * cpu / said.images, 1), "load": os.getloadavg()[0],
        "dialogues": sum(sheet["task"].values()), "expression_types": len(types),
        "bytes_per_record": size // said.images, "machine": platform.processor() or platform.machine(),
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(
        f"{result['images_per_second']} images/s over {said.workers} processes: {said.images} images of {said.size} px, {said.instances} instances each, "
        f"{result['dialogues']} dialogues, {result['expression_types']} types of expressions, {seconds:.1f} s, "
        f"{result['cpu_ms_per_image']} ms of processor time per image, load {result['load']:.1f}"
    )


if __name__ == "__main__":
    main()
