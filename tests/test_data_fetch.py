from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest

from geopix.data.fetch import ADDRESSES, fetch, main


def test_the_listing_names_every_set_with_its_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ADDRESSES) + 1
    assert all(address.licence in line and (address.repository or "by hand") in line for address, line in zip(ADDRESSES, lines[1:], strict=True))
    assert all(address.repository or address.note for address in ADDRESSES)


class Hub(ThreadingHTTPServer):
    """A server that speaks as much of the hub's protocol as a download needs, for one data set of a small and a large file."""

    files: ClassVar[dict[str, bytes]] = {"README.md": b"about", "data/train.zip": bytes(range(256)) * 100_000}
    repository = "earth-insights/EarthReason"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, str | None]] = []
        self.cut: int | None = None  # so many bytes of the large file are sent, then the line breaks
        self.damaged = False


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/"):
            large = {"sha256": sha256(Hub.files["data/train.zip"]).hexdigest(), "size": len(Hub.files["data/train.zip"]), "pointerSize": 130}
            small = sha1(b"blob 5\0about").hexdigest()
            if "/tree/" in path:
                listed = [
                    {"type": "file", "path": "README.md", "size": 5, "oid": small},
                    {"type": "file", "path": "data/train.zip", "size": large["size"], "oid": "0" * 40, "lfs": {"oid": large["sha256"], **large}},
                ]
                self.send({}, json.dumps(listed).encode())
                return
            names = [
                {"rfilename": "README.md", "size": 5, "blobId": small},
                {"rfilename": "data/train.zip", "size": large["size"], "blobId": "0" * 40, "lfs": large},
            ]
            self.send(
                {},
                json.dumps(
                    {"id": Hub.repository, "sha": "a" * 40, "siblings": names, "private": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
                ).encode(),
            )
            return
        name = path.partition(f"/resolve/{'a' * 40}/")[2]
        content = Hub.files[name]
        tag = sha256(content).hexdigest() if name.endswith("zip") else sha1(b"blob 5\0about").hexdigest()
        if self.server.damaged and name.endswith("zip"):
            content = content[:-1] + b"x"
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if self.command == "GET":
            self.server.asked.append((name, self.headers.get("Range")))
        self.send({"ETag": f'"{tag}"', "X-Repo-Commit": "a" * 40, "Accept-Ranges": "bytes"}, content, start)

    def send(self, headers: dict[str, str], content: bytes, start: int = 0) -> None:
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.server.cut if len(content) > 10_000 else None
        self.wfile.write(content[start:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetched(hub: Hub, out: Path) -> subprocess.CompletedProcess[str]:
    place = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(out.parent / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    }
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")} | place
    command = [sys.executable, "-m", "geopix", "data", "fetch", "earthreason", "--out", str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_what_is_fetched_is_what_the_hub_lists(hub: Hub, tmp_path: Path) -> None:
    done = fetched(hub, tmp_path / "set")
    assert done.returncode == 0, done.stderr
    assert "Apache-2.0" in done.stdout
    for name, content in Hub.files.items():
        assert (tmp_path / "set" / name).read_bytes() == content


def test_a_damaged_file_is_told_and_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    hub.damaged = True
    done = fetched(hub, tmp_path / "set")
    assert done.returncode == 3
    assert "1 files of earth-insights/EarthReason were not what the hub lists: ['data/train.zip']" in done.stderr
    hub.damaged = False
    assert fetched(hub, tmp_path / "set").returncode == 0
    assert (tmp_path / "set" / "data" / "train.zip").read_bytes() == Hub.files["data/train.zip"]


def test_a_download_that_broke_off_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.cut = 15_000_000
    done = fetched(hub, tmp_path / "set")
    assert done.returncode == 3, done.stdout
    assert "could not be fetched" in done.stderr
    hub.cut, hub.asked = None, []
    done = fetched(hub, tmp_path / "set")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "set" / "data" / "train.zip").read_bytes() == Hub.files["data/train.zip"]
    (asked,) = [place for name, place in hub.asked if name == "data/train.zip"]
    assert asked is not None, "it began anew"
    assert 10_000_000 < int(asked.removeprefix("bytes=").rstrip("-")) <= 15_000_000
    before = list(hub.asked)
    assert fetched(hub, tmp_path / "set").returncode == 0
    assert hub.asked == before, "what is there is not asked for again"


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
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    assert main(["vrsbench", "--out", str(tmp_path)]) == 3
    assert "could not be fetched into" in (told := capsys.readouterr().err)
    assert "no route to host. What is there is kept" in told
