"""Ten images of one's own as records, as docs/data.md shows it; the tests run it, and the commands after it."""

# --8<-- [start:make]
import json
from pathlib import Path

import numpy as np
from PIL import Image

folder = Path("own")
for name in ("images", "masks"):
    (folder / name).mkdir(parents=True, exist_ok=True)
random = np.random.default_rng(0)
rows, columns = np.mgrid[:128, :128]
lines = []
for number in range(10):
    ground = Image.fromarray(random.integers(60, 140, (9, 9, 3), dtype=np.uint8))
    image = np.asarray(ground.resize((128, 128), Image.Resampling.BICUBIC)).copy()
    x, y = random.integers(24, 44), random.integers(24, 104)
    pond = ((columns - x) / 20) ** 2 + ((rows - y) / 14) ** 2 < 1
    left, top = random.integers(70, 90), random.integers(10, 90)
    roof = (columns >= left) & (columns < left + 30) & (rows >= top) & (rows < top + 22)
    image[pond], image[roof] = (40, 80, 190), (190, 60, 40)

    ids = np.zeros((128, 128), dtype=np.uint8)  # 0 is nothing, 1 the pond, 2 the roof
    ids[pond], ids[roof] = 1, 2
    Image.fromarray(image).save(folder / "images" / f"{number}.png")
    Image.fromarray(ids).save(folder / "masks" / f"{number}.png")

    instances = [{"id": id, "class": name, "mask": {"png": f"masks/{number}.png", "value": id}} for id, name in ((1, "pond"), (2, "building"))]
    talks = [
        ("segment/single", "[segment] where is the pond?", "The pond is [SEG].", [[1]]),
        ("segment/single", "[segment] segment the red roof.", "The red roof is [SEG].", [[2]]),
        ("segment/absent", "[segment] where is the airplane?", "The airplane is not in this image.", []),
        ("vqa/presence", "[vqa] is there a pond?", "yes", []),
    ]
    dialogues = [{"task": task, "turns": [{"prompt": prompt, "answer": answer}], "targets": targets} for task, prompt, answer, targets in talks]
    lines.append(json.dumps({"image": f"images/{number}.png", "key": f"{number}", "instances": instances, "dialogues": dialogues}))
(folder / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
# --8<-- [end:make]
