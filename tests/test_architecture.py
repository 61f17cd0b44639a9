"""The floors of the house: what each module may import, and what must not exist."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "geopix"
FILES = sorted(SRC.rglob("*.py"))

BASE = {"types"}
PART = {"types", "contracts", "rle"}
FLOORS = {
    "types": set(),
    "rle": BASE,
    "contracts": BASE,
    "encoders": PART,
    "connectors": PART,
    "llms": PART,
    "decoders": PART,
    "memory": PART,
    "metrics": BASE,
    "data": PART,
    "checkpoint": {""},
    "losses": {"mask_losses", "types"},
    "mask_losses": BASE,
    "model": {"contracts", "types"},
    "released": {"connectors", "contracts", "decoders", "encoders", "llms", "memory", "model"},
    "typeset": BASE,
    "zoo": {"", "contracts"},  # imports the families by their names, to find what extends a contract
    "pictures": {"typeset"},
    "polygons": BASE,
    "outputs": {"pictures", "polygons", "rle", "types"},
    "evaluation": {"", "data", "metrics", "pictures", "rle", "types"},
    "task": {"", "losses", "model", "evaluation", "types", "checkpoint"},
    "curriculum": {"data", "task"},
    "predictions": {"data", "evaluation", "outputs", "pictures", "task", "types"},
    "monitor": {"curriculum", "data", "evaluation", "pictures", "task", "types"},
    "results": {"", "checkpoint", "data", "evaluation", "task", "types"},
    "sweep": {"", "cli", "evaluation"},  # runs the command line, so it stands above it
}
LIGHTNING = {
    "checkpoint", "cli", "cli_benchmarks", "cli_callbacks", "contracts", "curriculum", "data/module", "monitor", "predictions", "results", "sweep/report",
    "task",
}  # fmt: skip


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def name_of(path: Path) -> str:
    return path.relative_to(SRC).with_suffix("").as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    unit = name_of(path).split("/")[0]
    if unit not in FLOORS:
        assert unit in {"__init__", "__main__", "cli"} or unit.startswith("cli"), f"{unit} has no floor: give it one in FLOORS"
        return
    own = {module.partition("geopix.")[2].split(".")[0] for module in imports(path) if module == "geopix" or module.startswith("geopix.")}
    assert own - {unit} <= FLOORS[unit]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_libraries_stay_where_they_are_used(path: Path) -> None:
    name, used = name_of(path), {module.split(".")[0] for module in imports(path)}
    if "lightning" in used:
        assert name in LIGHTNING
    if "transformers" in used:
        assert path.name == "hf.py" or name.startswith("llms/")
    if "timm" in used:
        assert name == "encoders/timm"
    if "segmentation_models_pytorch" in used:
        assert path.name == "smp.py" or name == "decoders/unet"
    if "peft" in used:
        assert path.name == "hf.py"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_must_not_exist(path: Path) -> None:
    assert path.name not in {"utils.py", "common.py", "helpers.py", "misc.py", "registry.py"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except, line {node.lineno}"
            assert not all(isinstance(line, ast.Pass) for line in node.body), f"silent except, line {node.lineno}"
        if isinstance(node, ast.FunctionDef):
            overrides = node.name == "instantiate_trainer"  # LightningCLI's own signature
            assert node.args.kwarg is None or overrides, f"**{node.args.kwarg and node.args.kwarg.arg} in {node.name}"
            assert not node.name.startswith(("register_", "build_", "create_")), node.name
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not node.value.startswith("cuda"), f"device string, line {node.lineno}"
