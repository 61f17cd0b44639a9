"""What every reader of a public format is: it turns a folder, as its authors lay it out, into records of the one format.

A reader tells what it leaves out and why; nothing vanishes silently. ``geopix data convert`` writes what it gives to a JSONL, and
:class:`geopix.data.sources.public.PublicSet` trains on it without that step.
"""

# Annotations are evaluated here: the command line's parser reads the types of a reader that is a dataclass only where those of its base are no strings.
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from geopix.data.records import Record, relative

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class About:
    """What is known about a public data set.

    Args:
        name: as its publication writes it.
        publication: where it is described (arXiv number, repository).
        licence: as stated by the authors; says so where none is.
        protocol: how results on it are scored.
        splits: published number of records (images, or expressions where ``counted`` says so) per split; empty where none is published.
        counted: what ``splits`` counts: ``images`` or ``dialogues``.
        uncertain: what could not be confirmed about the format, one sentence each.
    """

    name: str
    publication: str
    licence: str
    protocol: str
    splits: Mapping[str, int] = field(default_factory=dict)
    counted: str = "images"
    uncertain: tuple[str, ...] = ()


@dataclass
class Report:
    """What happened while a reader read: how often, and what was left out.

    Args:
        counts: occurrences by kind, such as ``missing image``.
        quarantine: what was left out: its ``kind``, ``where`` it stands, ``what`` is wrong.
        remarks: what was decided or found about the set as a whole, one sentence each.
    """

    counts: Counter[str] = field(default_factory=Counter)
    quarantine: list[dict[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def note(self, kind: str) -> None:
        """Count something that was repaired or is worth knowing."""
        self.counts[kind] += 1

    def remark(self, text: str) -> None:
        """Keep something about the set as a whole, and log it."""
        self.remarks.append(text)
        LOG.warning("%s", text)

    def leave_out(self, kind: str, where: str, what: str) -> None:
        """Count something that is not part of the records, and keep where it stands and what is wrong."""
        self.counts[kind] += 1
        self.quarantine.append({"kind": kind, "where": where, "what": what})


class Reader(ABC):
    """Records of one public data set. Constructors take what to read: the root folder first, then the split and the set's own choices.

    A reader holds its arguments, under their names, and nothing else (a frozen dataclass does), so that what it gives is named by them.

    Attributes:
        about: what the publication says.
        split: which part is read; None where the format has no parts.
    """

    about: ClassVar[About]
    root: Path
    split: str | None = None

    @abstractmethod
    def records(self, report: Report) -> Iterator[Record]:
        """The records, in an order that depends on nothing but the files. ``image`` (and ``mask.png``) are absolute paths here; writing makes them relative.

        Args:
            report: takes what was repaired or left out.

        Raises:
            FileNotFoundError: naming everything of the expected layout that is not there.
            ValueError: where a file is not what the format says.
        """


def compare_counts(about: About, split: str | None, found: int, report: Report) -> None:
    """Tell when a folder lists another number of records than was published for its split."""
    if (published := about.splits.get(str(split))) is not None and published != found:
        report.note("count differs from the publication")
        report.remark(f"{about.name} {split}: the folder lists {found} {about.counted}, the publication {published}.")


def from_folder(record: Record, folder: Path) -> Record:
    """A record as a JSONL in ``folder`` writes it: with the paths of its image and masks relative to that folder."""
    instances = [
        entry | {"mask": entry["mask"] | {"png": relative(Path(entry["mask"]["png"]), folder)}} if "png" in entry["mask"] else entry
        for entry in record["instances"]
    ]
    return record | {"image": relative(Path(record["image"]), folder), "instances": instances}
