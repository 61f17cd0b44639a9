"""``geopix fit | validate | test | predict``: LightningCLI with rules that keep a user's word."""

from __future__ import annotations

from lightning.pytorch.cli import LightningCLI

from geopix.data.module import GeoPixData
from geopix.task import GeoPixTask


class GeoPixCLI(LightningCLI):
    """One task, one data module, four verbs."""


def main(args: list[str] | None = None) -> int:
    """Run a verb."""
    GeoPixCLI(
        GeoPixTask,
        GeoPixData,
        args=args,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"max_epochs": 1, "use_distributed_sampler": False},
    )
    return 0
