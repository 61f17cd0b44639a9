"""Every file of configs/ goes through the real command line."""

from pathlib import Path

import pytest
import yaml

from tests.commands import ROOT, geopix

CONFIGS = ROOT / "configs"
WHOLE = sorted(CONFIGS.glob("*.yaml"))
TINY = sorted(CONFIGS.glob("tiny/*.yaml"))  # overlays of whole configurations, which tests/test_presets.py trains
PARTS = sorted(set(CONFIGS.glob("*/*.yaml")) - set(TINY))
SLOTS = {"data": "data.train", "curriculum": "trainer.callbacks+"}
# Whole configurations that train from scratch in seconds, with what makes them small.
CHEAP = {"quickstart": ["--model.net.llm.tokenizer.corpus.scenes", 5, "--data.val.count", 1, "--data.test.count", 2]}


def name_of(path: Path) -> str:
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


@pytest.mark.parametrize("path", WHOLE, ids=name_of)
def test_a_whole_configuration_is_read_by_every_verb(path: Path) -> None:
    for verb in ("fit", "validate", "test", "predict"):
        said = geopix(verb, "--config", path, "--print_config")
        assert said.code == 0, said.err
        assert yaml.safe_load(said.out)["trainer"]["default_root_dir"].startswith("runs/"), "name the run's folder"


@pytest.mark.parametrize("path", PARTS, ids=name_of)
def test_a_part_takes_its_slot(path: Path) -> None:
    family, written = path.parent.name, yaml.safe_load(path.read_text(encoding="utf-8"))
    base = ["fit", "--config", CONFIGS / "quickstart.yaml"]
    if "class_path" not in written:
        assert geopix(*base, "--config", path, "--print_config").code == 0
        return
    said = geopix(*base, f"--{SLOTS.get(family, f'model.net.{family}')}", path, "--print_config")
    assert said.code == 0, said.err
    assert written["class_path"] in said.out
    assert "out_dim" not in said.out


@pytest.mark.parametrize("path", [path for path in WHOLE if path.stem in CHEAP], ids=name_of)
def test_a_whole_configuration_trains_and_is_tested(path: Path, tmp_path: Path) -> None:
    base = ["--config", path, "--trainer.default_root_dir", tmp_path, "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    base += ["--trainer.log_every_n_steps", 1]
    base += ["--data.batch_size", 2, "--data.num_workers", 0, "--model.max_new_tokens", 4, *CHEAP[path.stem]]
    fit = geopix("fit", *base, "--trainer.limit_train_batches", 1, "--trainer.limit_val_batches", 1, "--trainer.val_check_interval", 1)
    assert fit.code == 0, fit.err
    test = geopix("test", *base, "--ckpt_path", "last")
    assert test.code == 0, test.err
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


def test_every_folder_is_a_known_family() -> None:
    families = {"encoder", "connector", "llm", "decoder", "memory", "data", "curriculum"}
    assert {path.parent.name for path in PARTS} <= families
    assert {path.name for path in TINY} <= {path.name for path in WHOLE}, "an overlay has the name of the configuration that it lies over"
