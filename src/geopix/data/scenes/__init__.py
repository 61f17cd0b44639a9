"""The embedded data set: procedural overhead images with exact masks and dialogues that are true by construction."""

from geopix.data.scenes.source import Scenes, SceneTexts

__all__ = ["SceneTexts", "Scenes"]
