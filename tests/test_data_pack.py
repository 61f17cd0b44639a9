from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from geopix.data.instruct import RealImages
from geopix.data.module import GeoPixData
from geopix.data.order import position
from geopix.data.pack import PackedImages, main, pack
from geopix.data.records import dialogue, instance, write_records
from geopix.data.source import collate
from tests import toys

litdata = pytest.importorskip("litdata", reason="the extra streaming is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # litdata warns about sizes, threads and files that it leaves open


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty records: PNG and GeoTIFF images, masks as RLE, polygons and numbers of a PNG."""
    folder = tmp_path_factory.mktemp("records")
    written = []
    for number in range(20):
        values = np.random.default_rng(number).integers(0, 255, (3, 24, 32), dtype=np.uint8)
        name = f"{number}.{'tif' if number % 3 == 0 else 'png'}"
        if name.endswith("tif"):
            place = {"crs": "EPSG:32636", "transform": rasterio.transform.from_origin(number, 0, 1, 1)}
            with rasterio.open(folder / name, "w", driver="GTiff", width=32, height=24, count=3, dtype="uint8", **place) as file:
                file.write(values)
        else:
            Image.fromarray(values.transpose(1, 2, 0)).save(folder / name)
        numbers = np.zeros((24, 32), dtype=np.uint8)
        numbers[2:8, 3:9] = 7
        Image.fromarray(numbers).save(folder / f"{number}_mask.png")
        things = [
            instance(1, {"png": f"{number}_mask.png", "value": 7}, of_class="ship"),
            instance(2, {"polygon": [[12, 4, 20, 4, 20, 12, 12, 12]]}, of_class="plane"),
        ]
        said = [dialogue("segment/single", [("[segment] where is the ship?", "The ship is [SEG].")], [[1]])]
        said += [dialogue("vqa/count", [("[vqa] how many ships are there?", "1")])] if number % 2 else []
        said += [dialogue("segment/single", [("[segment] where is the plane?", "The plane is [SEG].")], [[2]])]
        written.append({"image": name, "key": f"k{number}", "split": "train" if number < 16 else "val", "instances": things, "dialogues": said})
    write_records(folder / "records.jsonl", written)
    return folder / "records.jsonl"


@pytest.fixture(scope="module")
def shards(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shards"
    assert main([str(records), "--out", str(folder), "--split", "train", "--shard_mb", "1"]) == 0
    return folder


def test_shards_give_the_samples_of_the_file(records: Path, shards: Path) -> None:
    packed, plain = PackedImages(str(shards), 32, dialogues=2), RealImages(records, 32, split="train", dialogues=2)
    packed.check()
    assert (packed.count, packed.bands, packed.kinds) == (16, 3, plain.kinds)
    assert sum(packed.blocks) == 16
    for index in range(16):
        for mix in (None, {"segment": 1.0}):
            one, two = packed.sample(index, mix, truth=True), plain.sample(index, mix, truth=True)
            assert torch.equal(one.image, two.image)
            assert (one.key, one.frame, one.georeference, one.truth, one.unions) == (two.key, two.frame, two.georeference, two.truth, two.unions)
            batch, other = collate([one]), collate([two])
            assert torch.equal(batch.masks, other.masks)
            assert batch.dialogues == other.dialogues
    assert list(packed.having({"vqa": 1.0})) == list(range(1, 16, 2))
    places = [position(packed, number, {"vqa": 1.0})[0] for number in range(8)]
    assert sorted(places) == list(range(1, 16, 2))


def test_shards_are_many_files_of_many_records(records: Path, tmp_path: Path) -> None:
    big = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "big.png")
    for number, record in enumerate(big):
        record |= {"image": "big.png", "key": f"b{number}", "instances": [], "dialogues": [dialogue("vqa/count", [("[vqa] how many?", str(number))])]}
    write_records(tmp_path / "big.jsonl", big)
    assert pack(tmp_path / "big.jsonl", tmp_path / "out", shard_mb=4, workers=1) == 20
    source = PackedImages(str(tmp_path / "out"), 16)
    assert len(source.blocks) > 4
    assert [source.sample(index).dialogues[0].turns[0].answer for index in (19, 0, 7)] == ["19", "0", "7"]


def test_what_is_no_shard_and_what_cannot_be_packed_is_told(records: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no geopix\.index\.json; expected a folder that geopix data pack wrote"):
        PackedImages(str(tmp_path), 32).check()
    with pytest.raises(ValueError, match="is not empty"):
        pack(records, shards)
    with pytest.raises(FileNotFoundError, match="do not exist"):
        pack(tmp_path / "no.jsonl", tmp_path / "new")


def test_shards_in_an_object_store_give_the_records(records: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server", reason="moto[server], which stands for an object store, is not installed")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setattr("litdata.streaming.downloader._OBSTORE_AVAILABLE", False)  # its faster client refuses addresses without TLS
        client = importlib.import_module("boto3").client("s3")
        client.create_bucket(Bucket="tiles")
        for file in shards.iterdir():
            client.upload_file(str(file), "tiles", f"shards/{file.name}")
        packed, plain = PackedImages("s3://tiles/shards", 32, cache=str(tmp_path / "cache")), RealImages(records, 32, split="train")
        packed.check()
        assert packed.count == plain.count == 16
        for index in range(16):
            assert torch.equal(packed.sample(index).image, plain.sample(index).image)
        data = GeoPixData(predict=packed, batch_size=2, num_workers=2)
        data.trainer = toys.trainer(tmp_path)
        assert [key for batch in data.predict_dataloader() for key in batch.keys] == [plain.sample(index).key for index in range(16)]
    finally:
        server.stop()


def test_shards_that_were_not_all_written_are_told(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimize = litdata.optimize
    monkeypatch.setattr("litdata.optimize", lambda function, inputs, **options: optimize(function, inputs[:-1], **options))
    with pytest.raises(ValueError, match="holds 19 of the 20 records"):
        pack(records, tmp_path / "out")
