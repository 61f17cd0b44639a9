"""Stands for ``geopix`` in a sweep's trials: takes no time, leaves the files of a trial, and fails, hangs or dies where it is told to.

What a trial should do is said by files in the folder of the sweep: ``fail-1`` lets the trial with seed 1 fail, ``hang-1`` makes it wait.
"""

import json
import sys
import time
from pathlib import Path

import yaml


def main() -> None:
    """One command of a trial."""
    verb, path = sys.argv[1], Path(sys.argv[3])
    config, folder = yaml.safe_load(path.read_text(encoding="utf-8")), path.parent
    seed, memory = config["seed_everything"], config["model"]["net"]["memory"]
    with (folder.parent / "calls.txt").open("a", encoding="utf-8") as file:
        file.write(f"{folder.name}: {verb} {' '.join(sys.argv[4:])}".rstrip() + "\n")
    if verb == "fit":
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        lines = [{"step": step, "seconds": 30.0 * step, "metrics": {"val/single/giou": 0.01 * step * (seed + 1), "val/single/count": 8}} for step in (1, 2, 3)]
        (folder / "validations.jsonl").unlink(missing_ok=True)
        for line in [] if (folder.parent / "silent").exists() else lines:
            with (folder / "validations.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            time.sleep(1.0 if (folder.parent / "slow").exists() else 0)
    if (folder.parent / f"hang-{seed}").exists():
        time.sleep(60)
    if (folder.parent / f"fail-{seed}").exists():
        print("Epoch 0: 10%\rEpoch 0: 20%\nRuntimeError: the loss is not a number")
        sys.exit(3)
    if verb == "fit":
        said = {"step": 3, "seconds": 90.0, "parameters": 1000 if memory is None else 1200, "trained": 1000, "device": "1 x cpu", "versions": {"geopix": "0"}}
        (folder / "fitted.json").write_text(json.dumps(said), encoding="utf-8")
    elif not (folder.parent / "silent").exists():
        giou = 0.5 + 0.1 * seed + (0 if memory is None else 0.25)
        (folder / "metrics.json").write_text(json.dumps({"metrics": {"single/giou": giou, "absent/n_acc": 0.5, "single/count": 8}}), encoding="utf-8")


if __name__ == "__main__":
    main()
