"""``geopix data fetch``: download what its authors publish on the Hugging Face hub, and say of everything else where to get it and why not from here.

    geopix data fetch
    geopix data fetch refsegrs --out data/refsegrs

Downloads resume where they stopped, and every file is compared with the checksum that the hub keeps of it. Only repositories of
the authors themselves are named: copies by others may differ, and a wrong address is worse than none.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Address:
    """Where a public data set is.

    Args:
        name: what ``fetch`` calls it.
        repository: data set on the hub; empty where it has to be got by hand.
        licence: as its authors state it.
        size: of the download, as published; empty where unknown.
        note: what is missing from the download, or where to go and why.
    """

    name: str
    repository: str
    licence: str
    size: str = ""
    note: str = ""


ADDRESSES = (
    Address(
        "geopixinstruct", "Norman-ou/GeoPixInstruct-Anno", "MIT (annotations)", "38 MB", "annotations alone: the pictures are SAMRS's, see samrs; no test split"
    ),
    Address("refsegrs", "JessicaYuan/RefSegRS", "CC-BY-4.0", "3.0 GB", "one zip: unpack it"),
    Address("earthreason", "earth-insights/EarthReason", "Apache-2.0"),
    Address("vrsbench", "xiang709/VRSBench", "CC-BY-4.0 (annotations); pictures keep the terms of DOTA (academic) and DIOR", "12.4 GB", "zips: unpack them"),
    Address("geochat_instruct", "MBZUAI/GeoChat_Instruct", "Apache-2.0", "", "images come in three parts: join them in order with cat, then unzip"),
    Address("geochat_bench", "MBZUAI/GeoChat-Bench", "Apache-2.0", "", "questions alone; pictures are those of the sets that it is made from"),
    Address("samrs", "", "research purposes only", "", "repository ViTAE-Transformer/SAMRS links OneDrive and Baidu, which need a browser"),
    Address(
        "rrsisd",
        "",
        "not stated by its authors",
        "",
        "repository Lsan2401/RMSIN links Google Drive and Baidu, which need a browser; copies on the hub are not theirs",
    ),
    Address("risbench", "", "CC-BY-4.0, as claimed", "", "repository HIT-SIRS/CroBIM links Baidu, which needs an account"),
    Address(
        "dior_rsvg",
        "",
        "none stated",
        "",
        "repository ZhanYang-nwpu/RSVG-pytorch links Google Drive, which needs a browser; copies on the hub were made by others",
    ),
    Address("rsvqa", "", "see rsvqa.sylvainlobry.com", "", "the authors' site links Zenodo; no checksum of the archives is known to this program"),
    Address("isaid", "", "academic use only", "", "captain-whu.github.io/iSAID; the pictures are DOTA's, behind its terms"),
    Address("loveda", "", "CC BY-NC-SA 4.0, academic", "", "repository Junjue-Wang/LoveDA links Zenodo; no checksum of the archives is known to this program"),
    Address("ucm_captions", "", "none stated", "", "repository 201528014227051/RSICD_optimal links the archives of UCM, Sydney and RSICD captions"),
    Address("nwpu_captions", "", "none stated", "", "repository HaiyanHuang98/NWPU-Captions"),
    Address("rsicap", "", "academic use", "", "repository Lavender105/RSGPT: its form has to be filled in"),
)


def listing() -> str:
    """All data sets as a table: what fetch does for each."""
    rows = [("name", "from", "licence", "remark"), *((one.name, one.repository or "by hand", one.licence, _remark(one)) for one in ADDRESSES)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows)


def _remark(address: Address) -> str:
    return "; ".join(part for part in (address.size, address.note) if part)


def fetch(name: str, out: Path) -> Path:
    """Download a data set into a folder; a second call goes on where the first stopped.

    Raises:
        ValueError: for an unknown name, one that has to be got by hand, where there is no network or no permission, and for files that are not what the
            hub says; those are removed, so that the next call fetches them anew.
    """
    known = {address.name: address for address in ADDRESSES}
    if name not in known:
        raise ValueError(f"there is no data set {name!r} to fetch; there are {', '.join(known)}.")
    address = known[name]
    if not address.repository:
        raise ValueError(f"{name} has to be got by hand: {address.note}. Its licence: {address.licence}. Then: geopix data convert.")
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ValueError(f"HF_HUB_OFFLINE=1 forbids to fetch {name} from the hub ({address.repository}); unset it, or copy the files to {out} by hand.")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the second is of its client, whichever it uses: a line that breaks

    damaged = []
    try:
        listed = HfApi().dataset_info(address.repository, files_metadata=True)
        for file in listed.siblings or ():
            found = _Listed(address.repository, str(listed.sha), file.rfilename, file.size or 0, file.blob_id, file.lfs.sha256 if file.lfs else None)
            damaged += [] if _got(found, out / file.rfilename) else [file.rfilename]
    except (HfHubHTTPError, HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{address.repository} could not be fetched into {out}: {reason}. What is there is kept; the same command goes on from it.") from error
    if damaged:
        raise ValueError(
            f"{len(damaged)} files of {address.repository} were not what the hub lists: {damaged[:8]}. They are removed; the same command fetches them anew."
        )
    return out


@dataclass(frozen=True)
class _Listed:
    """A file as the hub lists it: ``sha256`` of large files, and of others git's hash, ``blob``."""

    repository: str
    revision: str
    name: str
    size: int
    blob: str | None
    sha256: str | None


def _got(file: _Listed, path: Path) -> bool:
    """Whether a file is there as the hub lists it, now or before. What of it was there already is not asked for again.

    The hub's own library begins each file anew in every process and compares sizes alone; some of these files have ten gigabytes.
    """
    if path.is_file() and _as_listed(path, file):
        return True
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.is_file() else 0
    if have < file.size or not have:
        _go_on(file, part, have)
    if not _as_listed(part, file):
        part.unlink()
        return False
    part.replace(path)
    return True


def _go_on(file: _Listed, part: Path, have: int) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(file.repository, file.name, repo_type="dataset", revision=file.revision)
    headers = build_hf_headers() | ({"Range": f"bytes={have}-"} if have else {})
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=60) as response:
        hf_raise_for_status(response)
        with part.open("ab" if response.status_code == 206 else "wb") as out:
            for chunk in response.iter_bytes(1 << 20):
                out.write(chunk)


def _as_listed(path: Path, file: _Listed) -> bool:
    """Whether a file has the hash that the hub keeps; git's SHA-1 begins with the kind and the length."""
    with path.open("rb") as content:
        if file.sha256 is not None:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        digest.update(content.read())
    return file.blob is None or digest.hexdigest() == file.blob


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        0, or 3 where nothing was fetched.
    """
    parser = argparse.ArgumentParser("geopix data fetch", description="Download a public data set; without a name, list them.", allow_abbrev=False)
    parser.add_argument("name", nargs="?", help="what to fetch")
    parser.add_argument("--out", type=Path, help="folder for the files; data/NAME unless given")
    given = parser.parse_args(arguments)
    if given.name is None:
        print(listing())
        return 0
    try:
        folder = fetch(given.name, given.out or Path("data") / given.name)
    except ValueError as error:
        print(f"geopix: {error}", file=sys.stderr)
        return 3
    print(f"{given.name} in {folder}; its licence: {next(one.licence for one in ADDRESSES if one.name == given.name)}")
    return 0
