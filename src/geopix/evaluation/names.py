"""What the names of scores tell. Nothing is imported here, so that tables of results come at once."""

from __future__ import annotations


def plain(name: str) -> str:
    """A score's name without benchmark and verb.

    Example:
        >>> plain("rrsis_d:single/giou"), plain("val/single/giou")
        ('single/giou', 'single/giou')
    """
    return name.rpartition(":")[2].removeprefix("val/")


def is_count(name: str) -> bool:
    """Whether a score only says how many things were scored. ``vqa/count`` is no such one: it is the accuracy of counting questions."""
    family, _, score = plain(name).rpartition("/")
    return (score == "count" and family != "vqa") or score.endswith("_num") or score.startswith("num_")


def is_detail(name: str) -> bool:
    """Whether a score is about a single class or size."""
    return name.startswith(("class/", "size/"))
