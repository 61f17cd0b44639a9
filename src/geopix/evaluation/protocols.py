"""By which rule a number was made. A score without its protocol says little, so every result carries its name and its definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from geopix.metrics.vqa import lower, normalise

ProtocolName = Literal["generate", "generate_named", "generate_misnamed", "teacher_forced", "peers/lisa", "peers/rmsin", "peers/segearth", "peers/geochat"]


@dataclass(frozen=True)
class Protocol:
    """How a model is asked, and how its masks are compared.

    Args:
        says: the rule in a sentence, printed with results.
        forced: the true answer, with its ``[SEG]``, is given to the model and only the masks are judged; answers in words then have no score.
        named: the memory is told the class of each mask.
        misnamed: it is told another class instead.
        size: masks are compared in a square of this many pixels; at the image's own size where None.
        stretched: whether the image fills that square, or keeps its proportions within it.
        empty: IoU of an empty mask against an empty truth.
        strict: whether Pr@X counts masks *above* the threshold, and not those that equal it.
        names: other names that the protocol's papers give to scores.
        left_out: kinds of questions with short answers that do not count.
        read: what is done to short answers before they are compared.
    """

    says: str
    forced: bool = False
    named: bool = False
    misnamed: bool = False
    size: int | None = None
    stretched: bool = False
    empty: float = 1.0
    strict: bool = True
    names: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    read: Callable[[str], str] = normalise

    def counts_as(self, other: Protocol) -> bool:
        """Whether two protocols differ at most in what the memory is told, so that their scores mean the same."""
        return replace(self, says="", named=False, misnamed=False) == replace(other, says="", named=False, misnamed=False)


_FREE = "the model gets image and question and writes its own answer; masks at the image's own size; a mask that was not drawn counts 0"
PROTOCOLS: dict[ProtocolName, Protocol] = {
    "generate": Protocol(f"{_FREE}; empty against empty is 1; Pr@X is IoU > X"),
    "generate_named": Protocol(f"{_FREE}; empty against empty is 1; Pr@X is IoU > X; the memory is told the class of each mask", named=True),
    "generate_misnamed": Protocol(
        f"{_FREE}; empty against empty is 1; Pr@X is IoU > X; the memory is told a wrong class of each mask, the next of its vocabulary",
        named=True,
        misnamed=True,
    ),
    "teacher_forced": Protocol(
        "the true answer with its [SEG] is given and only masks are judged, at the image's own size; empty against empty is 1; Pr@X is IoU > X", forced=True
    ),
    "peers/lisa": Protocol("as LISA's validate: the true answer is given; own size; gIoU mean, cIoU cumulative; empty against empty is 1", forced=True),
    "peers/rmsin": Protocol(
        "as RMSIN and LAVT: a mask for every expression, compared at 480 x 480 after stretching; mIoU mean, oIoU cumulative; empty against empty is 0; "
        "Pr@X is IoU >= X",
        forced=True,
        size=480,
        stretched=True,
        empty=0.0,
        strict=False,
        names={"giou": "miou", "ciou": "oiou"},
    ),
    "peers/segearth": Protocol(
        "as SegEarth-R1: a mask for every expression, compared with the longer side at 1024 pixels; gIoU mean, cIoU cumulative; empty against empty is 1; "
        "Pr@X is IoU > X",
        forced=True,
        size=1024,
    ),
    "peers/geochat": Protocol(
        f"{_FREE}; empty against empty is 1; Pr@X is IoU > X; of questions with short answers those for numbers (count, area) do not count, the others are "
        "compared in lower case alone, and the average is over questions (vqa/oa)",
        left_out=("count", "area"),
        read=lower,
    ),
}
"""By name. Sources: the evaluation code of LISA (https://github.com/dvlab-research/LISA), RMSIN (https://github.com/Lsan2401/RMSIN) and SegEarth-R1
(https://github.com/earth-insights/SegEarth-R1), and what GeoChat's paper tells of its own (https://arxiv.org/abs/2311.15826), as docs/evaluation.md tells."""

assert set(PROTOCOLS) == set(get_args(ProtocolName))
