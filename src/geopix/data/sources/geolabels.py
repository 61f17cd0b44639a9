"""Any georeferenced pictures with a GeoJSON or GeoPackage of labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import rasterio
import shapely
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.windows import Window
from rasterio.windows import transform as transform_of

from geopix.data.images import describe
from geopix.data.records import Record
from geopix.data.sources.pieces import Picture, from_mask, record_of
from geopix.data.sources.reader import About, Reader, Report
from geopix.data.sources.wording import from_classes

WHOLE = 0.5
"""Least share of a label that a picture must show for the label to be asked for alone."""


@dataclass(frozen=True)
class GeoLabels(Reader):
    """Labels become instances of the pictures that they lie in; every class of a picture is one expression.

    Labels are brought into the CRS of each picture, then filled by pixel centres. With ``tile`` records are about square windows of a picture, which
    overlap by ``overlap`` pixels; the last ones of a row or column are moved back so that none is cut off. Nothing is copied. Points and lines are left out.

    Args:
        root: folder that the other paths start from.
        labels: the GeoJSON, GeoPackage or whatever else geopandas reads.
        images: pattern of the pictures, such as ``images/*.tif``.
        field: column of the labels that holds their class, a text or a number; null where it is unknown. All are of the class ``name`` unless given.
        name: class of the labels where there is no field.
        classes: names of the classes by value of the field, such as ``{"1": building, "2": road}``; values that are not named keep their own.
        labels_crs: CRS that the labels are in, where their file is wrong about it; ``image`` for that of each picture.
        tile: rows and columns of the windows, in pixels; pictures are taken whole unless given.
        overlap: pixels that neighbouring windows share.
        licence: of pictures and labels.
        split: what the records are told to be part of.
    """

    root: Path
    labels: Path = Path("labels.geojson")
    images: str = "*.tif"
    field: str | None = None
    name: str = "building"
    classes: dict[str, str] | None = None
    labels_crs: str | None = None
    tile: int | None = None
    overlap: int = 0
    licence: str = "not stated"
    split: str | None = None

    about = About(
        name="GeoLabels",
        publication="the user's own pictures and labels",
        licence="as given in licence",
        protocol="gIoU and cIoU of LISA",
        uncertain=("A label smaller than a pixel may cover no pixel centre; it is left out and counted.",),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        if self.tile is not None and not 0 <= self.overlap < self.tile:
            raise ValueError(f"overlap must be at least 0 and less than tile; found overlap={self.overlap}, tile={self.tile}.")
        paths = sorted(self.root.glob(self.images))
        if not paths:
            found = sorted(entry.name for entry in self.root.iterdir())[:12] if self.root.is_dir() else "no folder at all"
            raise FileNotFoundError(f"{self.root} holds no picture {self.images!r}; found {found}. Give a pattern such as 'images/*.tif' as images.")
        labels = self._labels(report)
        used: set[int] = set()
        for path in paths:
            try:
                with rasterio.open(path) as picture:
                    if picture.crs is None:
                        report.leave_out("picture without a CRS", path.name, f"{path} says nothing of where it lies")
                        continue
                    placed = self._placed(labels, picture, path)
                    yield from self._pieces(picture, path, placed, used, report)
            except RasterioError as error:
                report.leave_out("unreadable picture", path.name, f"{path} cannot be read as an image: {describe(path)}. ({type(error).__name__})")
        for _ in range(len(labels) - len(used)):
            report.note("label outside all pictures")

    def _labels(self, report: Report) -> Any:
        """The polygons of the file, whatever their CRS."""
        path = self.root / self.labels
        if not path.is_file():
            raise FileNotFoundError(f"the labels {path} do not exist. Give a GeoJSON or GeoPackage as labels.")
        try:
            labels = geopandas.read_file(path)
        except (ValueError, RuntimeError, OSError) as error:
            raise ValueError(f"the labels {path} cannot be read: {describe(path)}. ({str(error).splitlines()[0][:120]})") from error
        if self.field is not None and self.field not in labels.columns:
            raise ValueError(f"the labels {path} have no column {self.field!r}; they have {[name for name in labels.columns if name != 'geometry']}.")
        labels = labels[labels.geometry.notna() & ~labels.geometry.is_empty]
        areal = labels.geometry.map(_areal)
        for row, shape in labels.geometry[areal.isna()].items():
            report.leave_out("label that is no polygon", f"{path.name}, label {row}", f"a {shape.geom_type} covers no pixels; give the outlines of things")
        labels = labels.set_geometry(areal, crs=labels.crs)[areal.notna()]
        self._tell_classes(labels, path, report)
        return labels

    def _tell_classes(self, labels: Any, path: Path, report: Report) -> None:
        """Count labels without a class, and tell names of classes that stand for no label."""
        values = [_written(value) for value in labels[self.field]] if self.field else [self.name]
        found = sorted({value for value in values if value is not None})
        if nameless := sum(value is None for value in values):
            report.counts["label without a class"] += nameless
        if unused := sorted(set(self.classes or {}) - set(found)):
            where = f"column {self.field!r} of {path}" if self.field else "class, because there is no field"
            report.remark(f"classes names {unused}, but the {where} holds {found[:20]}; write the values as they stand there.")

    def _placed(self, labels: Any, picture: Any, path: Path) -> Any:
        """The labels in the picture's CRS, as far as they touch it."""
        if self.labels_crs is not None:
            labels = labels.set_crs(picture.crs if self.labels_crs == "image" else self.labels_crs, allow_override=True)
        if labels.crs is None:
            raise ValueError(f"the labels {self.labels} do not say their CRS. Give it as labels_crs, such as EPSG:4326, or 'image' for that of the pictures.")
        far = np.abs(labels.total_bounds).max()
        if labels.crs.is_geographic and far > 360:
            raise ValueError(
                f"the labels {self.labels} are said to be in degrees ({labels.crs.to_string()[:40]}) but reach {far:g}. "
                f"Give their true CRS as labels_crs, such as 'image' for that of {path.name}."
            )
        placed = labels if labels.crs == picture.crs else labels.to_crs(picture.crs)
        return placed[placed.intersects(shapely.box(*picture.bounds))]

    def _pieces(self, picture: Any, path: Path, placed: Any, used: set[int], report: Report) -> Iterator[Record]:
        for window in _windows(picture.height, picture.width, self.tile, self.overlap):
            transform = transform_of(window, picture.transform)
            key = path.stem if self.tile is None else f"{path.stem}_{window.row_off}_{window.col_off}"
            if self.tile is not None and not picture.dataset_mask(window=window).any():
                report.note("tile without data")
                continue
            piece = Picture(path, window.height, window.width, key)
            instances = self._instances(placed, piece, transform, used, report)
            talks = from_classes(instances, key)
            if talks:
                part = {} if self.tile is None else {"window": [window.col_off, window.row_off, window.width, window.height]}
                yield record_of(self.about, piece, key, self.split, talks, instances) | {"licence": self.licence} | part
            else:
                report.note("picture without labels" if self.tile is None else "tile without labels")

    def _instances(self, placed: Any, piece: Picture, transform: Any, used: set[int], report: Report) -> list[dict[str, Any]]:
        """The labels of a piece; those that it shows less than half of are only for groups."""
        corners = [transform * corner for corner in ((0, 0), (piece.width, 0), (piece.width, piece.height), (0, piece.height))]
        inside = placed[placed.intersects(shapely.Polygon(corners))]
        instances = []
        for row, shape in zip(inside.index.tolist(), inside.geometry, strict=True):
            if not shape.is_valid:
                report.note("label that crosses itself, made valid")
                shape = _areal(shapely.make_valid(shape))
            used.add(int(row))
            if shape is None:
                report.note("label without area")
                continue
            mask = rasterize([(shape, 1)], out_shape=(piece.height, piece.width), transform=transform, dtype=np.uint8).astype(bool)
            if not mask.any() and self.tile is not None:
                report.note("label that only touches a tile")
                continue
            made = from_mask(piece, int(row), mask, report, of_class=self._class(inside.at[row, self.field] if self.field else self.name))
            if made is not None:
                shown = mask.sum() * abs(transform.determinant) / shape.area if shape.area else 1.0
                instances.append(made | ({"distractor_only": True} if shown < WHOLE else {}))
        return instances

    def _class(self, value: Any) -> str | None:
        value = _written(value)
        written = "" if value is None else (self.classes or {}).get(value, value)
        return " ".join(written.lower().replace("_", " ").replace("-", " ").split()) or None


def _areal(shape: Any) -> Any:
    """The polygons of a geometry; None where it has none."""
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    polygons = [part for each in shapely.get_parts(shape) for part in shapely.get_parts(each) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(polygons) if polygons else None


def _written(value: Any) -> str | None:
    """A value of a column as text; None where it is null, which makes floats of whole numbers beside it.

    >>> _written(2.0), _written(2.5), _written("a"), _written(float("nan")), _written(None)
    ('2', '2.5', 'a', None, None)
    """
    if pandas.isna(value) is True:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _windows(height: int, width: int, tile: int | None, overlap: int) -> Iterator[Window]:
    if tile is None:
        yield Window(0, 0, width, height)
        return
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            yield Window(left, top, min(tile, width), min(tile, height))


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where pieces begin, the last one moved back to end with the picture.

    >>> _starts(650, 256, 0), _starts(500, 256, 56), _starts(100, 256, 0)
    ([0, 256, 394], [0, 200, 244], [0])
    """
    last = max(length - tile, 0)
    return [*range(0, last, tile - overlap), last]
