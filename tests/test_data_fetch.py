from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from geopix.data.fetch import ADDRESSES, fetch, main


def test_the_listing_names_every_set_with_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ADDRESSES) + 1
    assert all(address.licence in line and (address.repository or "by hand") in line for address, line in zip(ADDRESSES, lines[1:], strict=True))
    assert all(address.repository or address.note for address in ADDRESSES)


def test_what_is_fetched_comes_from_the_authors_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def download(repository: str, *, repo_type: str, local_dir: Path) -> str:
        asked.append((repository, repo_type, local_dir))
        return str(local_dir)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert main(["earthreason", "--out", str(tmp_path)]) == 0
    assert asked == [("earth-insights/EarthReason", "dataset", tmp_path)]
    assert "Apache-2.0" in capsys.readouterr().out


def test_what_cannot_be_fetched_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no data set 'rrsis' to fetch; there are geopixinstruct"):
        fetch("rrsis", tmp_path)
    with pytest.raises(ValueError, match=r"samrs has to be got by hand: .*OneDrive"):
        fetch("samrs", tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE=1 forbids to fetch vrsbench"):
        fetch("vrsbench", tmp_path)

    def fail(*_: object, **__: object) -> str:
        raise OSError("no route to host\nmore")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    assert main(["vrsbench", "--out", str(tmp_path)]) == 3
    assert "could not be fetched into" in (told := capsys.readouterr().err)
    assert "no route to host. What is there is kept" in told
