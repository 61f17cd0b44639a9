"""What a JSONL of a million records costs: the first batch from a saved index, with the check before it, and the memory of the index.

    python benchmarks/records.py

A record has eight instances and six dialogues; a hundred images, of 512 px unless told, are shared by all of them.
The index is made and saved by one process; another, new one opens it and is measured from the end of its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "costs" / "records.json"
TASKS = ("segment/single", "segment/single", "segment/multi", "segment/group", "vqa/count", "caption/scene")

OPEN = """
import json, sys, time
import numpy as np
import torch
from geopix.data.instruct import RealImages
from geopix.data.order import position
from geopix.data.source import collate
from geopix.data.index import ARRAYS
from lightning.pytorch import Trainer

def private():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith(("Private_Dirty", "Private_Clean"))) / 1024

torch.set_num_threads(1)
before, began = private(), time.perf_counter()
source = RealImages(sys.argv[1], int(sys.argv[2]))
count = source.count
opened = time.perf_counter() - began
source.check()
checked = time.perf_counter() - began
mix = {"segment": 2.0, "vqa": 1.0}
drawn = [position(source, number, mix) for number in range(16)]
batch = collate([source.sample(image, mix, epoch=epoch) for image, epoch in drawn])
first = time.perf_counter() - began
index = source.records._index
touched = sum(int(vars(index)[name].astype(np.uint64).sum()) for name in ARRAYS)
held = sum(vars(index)[name].nbytes for name in ARRAYS) / 2**20
print(json.dumps({"records": count, "opened_s": round(opened, 3), "checked_1000_s": round(checked, 3), "first_batch_s": round(first, 3),
                  "index_mib": round(held, 1), "private_mib": round(private() - before, 1)}))
"""


def main() -> None:
    """Writes the file, indexes it, measures, and writes ``benchmarks/results/costs/records.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=512, help="rows and columns of the images")
    parser.add_argument("--out", type=Path, default=RESULTS)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        _write(path, said.records, said.size)
        gigabytes = path.stat().st_size / 1e9
        began = time.perf_counter()
        _run("import sys; from pathlib import Path; from geopix.data.index import open_index; open_index(Path(sys.argv[1]))", path, said.size)
        indexing = time.perf_counter() - began
        found = {"gigabytes": round(gigabytes, 2), "indexing_once_s": round(indexing, 1)} | {"size": said.size} | json.loads(_run(OPEN, path, said.size))
    for name, value in found.items():
        print(f"{name:<20}{value}")
    said.out.parent.mkdir(parents=True, exist_ok=True)
    said.out.write_text(json.dumps({"command": "python benchmarks/records.py", "cores": os.cpu_count()} | found, indent=1) + "\n", encoding="utf-8")


def _run(code: str, path: Path, size: int) -> str:
    return subprocess.run([sys.executable, "-c", code, str(path), str(size)], check=True, capture_output=True, text=True).stdout.strip()


def _write(path: Path, count: int, size: int) -> None:
    """Records with instances and dialogues; their masks are rectangles."""
    rng = np.random.default_rng(0)
    heads = []
    for number in range(100):
        Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(path.parent / f"{number}.png")
        heads.append(json.dumps(_record(f"{number}.png", rng))[1:])
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            split = "train" if number % 10 else "val"
            file.write(f'{{"key": "{number}", "split": "{split}", {heads[number % 100]}\n')


def _record(image: str, rng: np.random.Generator) -> dict[str, object]:
    instances = []
    for number in range(8):
        x, y = (int(value) for value in rng.integers(0, 100, 2))
        ring = [x, y, x + 20, y, x + 20, y + 12, x, y + 12]
        instances.append({"id": number, "class": "ship", "box": [x, y, x + 20, y + 12], "mask": {"polygon": [ring]}})
    dialogues = []
    for task in TASKS:
        ids = {"segment/single": [[0]], "segment/multi": [[1], [2]], "segment/group": [list(range(8))]}.get(task, [])
        answer = " and ".join(["the ship is [SEG]"] * len(ids)) or "there are eight ships"
        dialogues.append({"task": task, "turns": [{"prompt": "[segment] where are the ships that lie by the pier?", "answer": answer}], "targets": ids})
    return {"image": image, "instances": instances, "dialogues": dialogues}


if __name__ == "__main__":
    main()
