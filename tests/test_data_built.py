"""Real labels become dialogues, and the dialogues train: the commands of docs/data.md."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from tests.commands import ROOT, geopix

FAIR = ROOT.parent / "shared" / "data" / "real" / "fair_buildings"
QUICK = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--model.net.llm.tokenizer.corpus.scenes", 5]
QUICK += ["--trainer.max_steps", 3, "--trainer.log_every_n_steps", 1, "--data.batch_size", 2, "--data.num_workers", 0]


@pytest.mark.skipif(not FAIR.is_dir(), reason="the real buildings beside the project are absent")
def test_what_is_built_from_real_buildings_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    text = page.split("### From labels to a trained model")[1].split("```bash\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    verbs = []
    for words in map(shlex.split, text.replace("\\\n", " ").splitlines()):
        verbs.append(words[1] if words[1] != "data" else words[2])
        given = [str(FAIR) if word == "FOLDER" else word for word in words[1:]]
        said = geopix(*given, *({"fit": QUICK, "build": ["--workers", 1]}.get(verbs[-1], [])))
        assert said.code == 0, said.err or said.out
    assert verbs == ["build", "check", "fit"]
    built = [json.loads(line) for line in Path("runs/built/buildings.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (len(built), {record["split"] for record in built}) == (11, {"kampala", "catanduanes"})
    assert all(dialogue["provenance"] for record in built for dialogue in record["dialogues"])
    saved = torch.load("runs/built/checkpoints/last.ckpt", weights_only=False)
    assert saved["global_step"] == 3
