"""The same records in every layout: each gives the flows that the points give when counted by hand."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import shutil
import struct
import tarfile
import time
import unicodedata
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest

BEGIN = datetime(2024, 3, 21, 9, tzinfo=UTC)  # 10:00 in Rome; no 21st month
ROMAN = timezone(timedelta(hours=1))


def _walk() -> list[tuple[str, datetime, float, float]]:
    """Points of five vehicles, a minute apart, which wander about in the box."""
    rng, points = random.Random(7), []
    for vehicle in range(5):
        lon, lat = 9.18, 45.47
        for minute in range(60):
            lon, lat = (
                min(max(lon + rng.uniform(-0.01, 0.01), 9.121), 9.239),
                min(max(lat + rng.uniform(-0.006, 0.006), 45.431), 45.509),
            )
            points.append((f"cab{vehicle}", BEGIN + timedelta(minutes=minute), round(lon, 6), round(lat, 6)))
    return points


POINTS = _walk()


def _by_hand() -> int:
    """Number of moves between cells of the small city, 6 columns and 10 rows."""
    cells = [(v, int((lon - 9.10) / (0.16 / 6)), int((45.52 - lat) / (0.10 / 10))) for v, _, lon, lat in POINTS]
    return sum(one[0] == two[0] and one != two for one, two in zip(cells, cells[1:], strict=False))


FLOW = _by_hand()


def rows(write: Callable[[str, datetime, float, float], str], header: str = "", end: str = "\n") -> str:
    """A file of text, each point as `write` writes it, with the time in Rome."""
    lines = [write(vehicle, time.astimezone(ROMAN), lon, lat) for vehicle, time, lon, lat in POINTS]
    return "".join(line + end for line in [*header.splitlines(), *lines])


def timed(form: str) -> bytes:
    """A CSV file with times of a format."""
    return rows(lambda v, t, x, y: f"{v};{t.strftime(form)};{x};{y}", "vehicle;timestamp;lon;lat").encode()


def placed(place: Callable[[float, float], str], name: str = "geometry") -> bytes:
    """A CSV file with the place in one column."""
    return rows(lambda v, t, x, y: f"{v};{t.isoformat()};{place(x, y)}", f"vehicle;timestamp;{name}").encode()


def csv(row: str) -> bytes:
    """A CSV file of rows that a format string writes.

    It has the vehicle `v`, the time `t` in Rome and in `utc`, the place `x` and `y`, also in microdegrees (`xm`, `ym`),
    and the longitude when the box is moved to the antimeridian (`moved`).
    """

    def write(v: str, t: datetime, x: float, y: float) -> str:
        moved = (x - 9.10 + 179.92 + 180) % 360 - 180
        others = {"utc": t.astimezone(UTC), "xm": round(x * 1e6), "ym": round(y * 1e6), "moved": moved}
        return row.format(v=v, t=t, x=x, y=y, **others)

    return rows(write, "vehicle,timestamp,lon,lat").encode()


def parquet(**columns: Any) -> bytes:
    """A Parquet file of vehicles, times and the given columns."""
    first = {"vehicle": [p[0] for p in POINTS], "timestamp": [p[1] for p in POINTS]}
    sink = io.BytesIO()
    pq.write_table(pa.table(first | columns), sink)
    return sink.getvalue()


UTM = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
MERCATOR = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True)
LON, LAT = [p[2] for p in POINTS], [p[3] for p in POINTS]
PLAIN = rows(lambda v, t, x, y: f"{v},{t.isoformat()},{x},{y}", "vehicle,timestamp,lon,lat")
BODY = PLAIN.partition("\n")[2]
CHINESE = PLAIN.replace("vehicle,timestamp,lon,lat", "车牌号,时间,经度,纬度")
GERMAN = PLAIN.replace("vehicle,timestamp,lon,lat", "Fahrzeug,Zeit,Länge,Breite")
CHINESE_KEYS = '[cities.small.feed.columns]\nvehicle = "车牌号"\ntime = "时间"\nlon = "经度"\nlat = "纬度"\n'
GERMAN_KEYS = '[cities.small.feed.columns]\nvehicle = "Fahrzeug"\ntime = "Zeit"\nlon = "Länge"\nlat = "Breite"\n'
COMMA = str.maketrans(".", ",")
POSITIONS = '[cities.small.feed.columns]\nvehicle = "0"\ntime = "1"\nlon = "2"\nlat = "{}"\n'

OBJECTS = [{"vehicle": v, "time": t.isoformat(), "lon": x, "lat": y} for v, t, x, y in POINTS]


def nested(vehicle: str, time: datetime, lon: float, lat: float) -> dict[str, Any]:
    """A vehicle as GTFS Realtime has it."""
    position = {"latitude": lat, "longitude": lon, "bearing": 5.0}
    return {
        "trip": {"tripId": "7"},
        "position": position,
        "timestamp": str(int(time.timestamp())),
        "vehicle": {"id": vehicle},
    }


# What a file holds, and the configuration that it needs.
READ: dict[str, tuple[bytes, str]] = {
    "plain": (PLAIN.encode(), ""),
    # Lines before the header
    "a title and an empty line": (f"Routes & locations,,,,,,\n,,,,,,\n{PLAIN}".encode(), ""),
    "comments": (f"# exported by a fleet manager\n# 300 rows, \"WGS84\n{PLAIN}".encode(), ""),
    "a header that is a comment": (f"# made by hand\n#{PLAIN}".encode(), ""),
    "a title, names of one's own": (
        f"Trips of 2019, all cabs, by day, for 5 cabs\n\n{GERMAN}".encode(), GERMAN_KEYS,
    ),
    "comments and no header": (f"# no header\n{BODY}".encode(), POSITIONS.format(3)),
    "Excel's sep=;": (f"sep=;\r\n{PLAIN.replace(',', ';')}".encode(), ""),
    "a mark and sep=": (f"\ufeffsep=|\r\n{PLAIN.replace(',', '|')}".encode(), ""),
    # Decimals
    "decimal commas": (
        rows(lambda v, t, x, y: f"{v};{t.isoformat()};{str(x).translate(COMMA)};{str(y).translate(COMMA)}",
             "vehicle;timestamp;lon;lat").encode(), "",
    ),
    "decimal commas in quotes": (
        rows(lambda v, t, x, y: f'{v},{t.isoformat()},"{str(x).translate(COMMA)}","{str(y).translate(COMMA)}"',
             "vehicle,timestamp,lon,lat").encode(), "",
    ),
    # Encodings
    "UTF-8 with a mark": (PLAIN.encode("utf-8-sig"), ""),
    "UTF-16": (PLAIN.encode("utf-16"), ""),
    "UTF-16, big-endian": (b"\xfe\xff" + PLAIN.encode("utf-16-be"), ""),
    "UTF-32": (PLAIN.encode("utf-32"), ""),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), '[cities.small.feed]\nencoding = "utf-16-le"\n'),
    "GBK": (CHINESE.encode("gbk"), f'[cities.small.feed]\nencoding = "gbk"\n{CHINESE_KEYS}'),
    "Latin-1": (GERMAN.encode("latin-1"), f'[cities.small.feed]\nencoding = "latin-1"\n{GERMAN_KEYS}'),
    "accents apart": (unicodedata.normalize("NFD", GERMAN).encode(), GERMAN_KEYS),
    "names of other capitals": (GERMAN.encode(), GERMAN_KEYS.replace("Fahrzeug", "FAHR zeug").replace("Zeit", "zeit")),
    # Times
    "year first": (timed("%Y/%-m/%-d %H:%M:%S"), ""),
    "UTC by name": (csv("{v},{utc:%Y-%m-%d %H:%M:%S} UTC,{x},{y}"), ""),
    "two digits of offset": (csv("{v},{t:%Y-%m-%d %H:%M:%S.%f}+01,{x},{y}"), ""),
    "Excel's, month first": (timed("%-m/%-d/%Y %H:%M"), ""),
    "month first, twelve hours": (timed("%m/%d/%Y %I:%M:%S %p"), ""),
    "day first, twelve hours": (timed("%d/%m/%Y %I:%M %p"), ""),
    "German": (timed("%d.%m.%Y %H:%M:%S"), ""),
    "ISO's basic form": (csv("{v},{utc:%Y%m%dT%H%M%SZ},{x},{y}"), ""),
    "Oracle's": (rows(lambda v, t, x, y: f"{v},{t:%d-%b-%y %I.%M.%S %p},{x},{y}".upper(),
                      "vehicle,timestamp,lon,lat").encode(), ""),
    "digits by their format": (timed("%Y%m%d%H%M%S"), '[cities.small.feed]\ntime_format = "%Y%m%d%H%M%S"\n'),
    "a format of one's own": (
        timed("%H Uhr %M, %d.%m.%y"), '[cities.small.feed]\ntime_format = "%H Uhr %M, %d.%m.%y"\n',
    ),
    "a comma before the fraction": (timed("%Y-%m-%d %H:%M:%S,000"), ""),
    "date and clock": (
        rows(lambda v, t, x, y: f"{v},{t:%Y-%m-%d,%H:%M:%S},{x},{y}", "vehicle,date,time,lon,lat").encode(), "",
    ),
    "date and clock, named": (
        rows(lambda v, t, x, y: f"{v},{t:%d/%m/%Y,%I:%M %p},{x},{y}", "vehicle,Tag,Uhr,lon,lat").encode(),
        '[cities.small.feed.columns]\ndate = "tag"\ntime = "uhr"\n',
    ),
    "a date with its midnight, and a clock": (
        rows(lambda v, t, x, y: f"{v},{t:%Y-%m-%d 00:00:00,%H:%M},{x},{y}", "vehicle,date,time,lon,lat").encode(), "",
    ),
    "date and clock in Parquet": (
        parquet(
            timestamp=pa.array([p[1].astimezone(ROMAN).time() for p in POINTS]),
            date=pa.array([p[1].date() for p in POINTS]), lon=LON, lat=LAT,
        ), "",
    ),
    # Places
    "POINT": (placed(lambda x, y: f"POINT({x} {y})"), ""),
    "POINT with SRID and height": (placed(lambda x, y: f'"SRID=4326;POINT Z ({x} {y} 12.5)"', "wkt"), ""),
    "POINT, latitude first": (placed(lambda x, y: f"POINT({y} {x})"), "[cities.small.feed]\nswapped = true\n"),
    "POINT without header": (
        placed(lambda x, y: f"POINT({x} {y})").partition(b"\n")[2],
        '[cities.small.feed]\nformat = "csv"\n' + POSITIONS.format(2),
    ),
    "latitude, longitude": (placed(lambda x, y: f"{y}, {x}", "location"), ""),
    "(latitude, longitude)": (placed(lambda x, y: f"({y}, {x})", "latlon"), ""),
    "[longitude, latitude]": (placed(lambda x, y: f"[{x}, {y}]", "coordinates"), ""),
    "GeoJSON in a cell": (
        placed(lambda x, y: f'"{{""type"": ""Point"", ""coordinates"": [{x}, {y}]}}"', "geom"), "",
    ),
    "hexadecimal bytes": (placed(lambda x, y: struct.pack("<BIdd", 1, 1, x, y).hex().upper(), "geom"), ""),
    "GeoParquet": (parquet(geometry=[struct.pack("<BIdd", 1, 1, x, y) for x, y in zip(LON, LAT, strict=True)]), ""),
    "a struct": (
        parquet(position=pa.array([{"latitude": y, "longitude": x} for x, y in zip(LON, LAT, strict=True)])),
        '[cities.small.feed.columns]\nlat = "position.latitude"\nlon = "position.longitude"\n',
    ),
    "a struct of usual names": (
        parquet(geometry=pa.array([{"x": x, "y": y} for x, y in zip(LON, LAT, strict=True)])), "",
    ),
    # JSON
    "an array": (json.dumps(OBJECTS).encode(), ""),
    "an array over many lines": (json.dumps(OBJECTS, indent=1).encode(), ""),
    "an array in a document": (json.dumps({"ttl": 60, "data": {"cabs": OBJECTS}}, indent=1).encode("utf-16"), ""),
    "nested keys": ("".join(json.dumps(nested(*point)) + "\n" for point in POINTS).encode(), ""),
    "nested keys, named": (
        "".join(json.dumps({"d": {"car": v, "at": t.isoformat(), "p": [x, y]}}) + "\n" for v, t, x, y in POINTS)
        .encode(),
        '[cities.small.feed.columns]\nvehicle = "d.car"\ntime = "d.at"\nlon = "d.p"\nlat = "d.p"\n',
    ),
    "GeoJSON": (
        json.dumps({"type": "FeatureCollection", "features": [
            {"type": "Feature", "properties": {"vehicle": v, "time": t.isoformat()},
             "geometry": {"type": "Point", "coordinates": [x, y]}} for v, t, x, y in POINTS
        ]}).encode(), "",
    ),
    "GTFS Realtime in JSON": (
        json.dumps({"header": {"gtfsRealtimeVersion": "2.0", "timestamp": "1711011600"}, "entity": [
            {"id": str(i), "vehicle": nested(v, t, x, y)} for i, (v, t, x, y) in enumerate(POINTS)
        ]}, indent=2).encode(), "",
    ),
    # Coordinates
    "microdegrees": (csv("{v},{t:%FT%T%z},{xm},{ym}"), "[cities.small.feed]\nscale = 1e-6\n"),
    "Web Mercator": (
        rows(lambda v, t, x, y: "{},{},{},{}".format(v, t.isoformat(), *MERCATOR.transform(x, y)),
             "vehicle,timestamp,x,y").encode(), '[cities.small.feed]\ncrs = "EPSG:3857"\n',
    ),
    "Excel's day numbers": (
        rows(lambda v, t, x, y: f"{v},{(t.replace(tzinfo=None) - datetime(1899, 12, 30)) / timedelta(days=1)},{x},{y}",
             "vehicle,time,lon,lat").encode(), '[cities.small.feed]\ntime_format = "excel"\n',
    ),
    "a list": (parquet(coordinates=pa.array([[x, y] for x, y in zip(LON, LAT, strict=True)])), ""),
}  # fmt: skip


def flows(report: dict[str, Any]) -> tuple[int, ...]:
    """The points, vehicles and flows of a report."""
    return tuple(report[key] for key in ("points_kept", "vehicles", "inflow", "outflow"))


@pytest.mark.parametrize("layout", READ)
def test_it_is_read(layout: str, trafficcast: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    content, feed = READ[layout]
    (tmp_path / "records.txt").write_bytes(content)
    config.write_text(config.read_text() + feed)
    ran = trafficcast("ingest", tmp_path / "records.txt", "--json")
    assert ran.code == 0, ran.err
    assert flows(ran.json) == (300, 5, FLOW, FLOW)
    assert not any(ran.json["rows_dropped"].values())


def tarred(mode: str, members: dict[str, bytes]) -> bytes:
    """A tar archive."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip archive."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


HALVES = {"a.csv": PLAIN.encode()[: len(PLAIN) // 2].rpartition(b"\n")[0] + b"\n"}
HALVES["sub/b.csv"] = b"vehicle,timestamp,lon,lat\n" + PLAIN.encode()[len(HALVES["a.csv"]) :]
PARQUET = parquet(lon=LON, lat=LAT)
PACKED = {
    "bzip2": bz2.compress(PLAIN.encode()),
    "xz": lzma.compress(PLAIN.encode()),
    "zstd": pa.Codec("zstd").compress(PLAIN.encode(), asbytes=True),
    "zip without its ending": zipped(HALVES),
    "tar": tarred("w", HALVES),
    "tar.gz": tarred("w:gz", HALVES),
    "tar.xz": tarred("w:xz", HALVES),
    "zip in a zip": zipped({"a.csv": HALVES["a.csv"], "more.zip": zipped({"b.csv": HALVES["sub/b.csv"]})}),
    "Parquet in a tar.bz2": tarred("w:bz2", {"./a.parquet": PARQUET}),
    "packed UTF-16 in a zip": zipped({"a.csv.gz": gzip.compress(PLAIN.encode("utf-16"))}),
}


@pytest.mark.parametrize("packing", PACKED)
def test_it_is_read_however_it_is_packed(packing: str, trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "download").write_bytes(PACKED[packing])
    ran = trafficcast("ingest", tmp_path / "download", "--json")
    assert ran.code == 0, ran.err
    assert flows(ran.json) == (300, 5, FLOW, FLOW)


# What a file holds, the configuration, and what the refusal says.
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "Latin-1, encoding not told": (GERMAN.encode("latin-1"), GERMAN_KEYS, 'set encoding = "cp1252" under ['),
    "GBK, encoding not told": (CHINESE.encode("gbk"), CHINESE_KEYS, 'set encoding = "gbk" under [cities.small.feed]'),
    "GBK, columns not named": (
        CHINESE.encode("gbk"), '[cities.small.feed]\nformat = "csv"\n', "it is no UTF-8: set its encoding under",
    ),
    "month or day first": (
        timed("%d/%m/%Y %H:%M").replace(b"21/", b"04/"), "",
        "as in '04/03/2024 10:00': set time_format = \"%m/%d/%Y %H:%M\" or time_format = \"%d/%m/%Y %H:%M\"",
    ),
    "POINT, latitude first": (placed(lambda x, y: f"POINT({y} {x})"), "", "set swapped = true"),
    "POINT without header": (
        placed(lambda x, y: f"POINT({x} {y})").partition(b"\n")[2], "",
        'set format = "csv" and, under [cities.small.feed.columns], vehicle = "0", time = "1", lon = "2", lat = "2"',
    ),
    "right, and swapped = true": (PLAIN.encode(), "[cities.small.feed]\nswapped = true\n", "remove swapped = true"),
    "Web Mercator": (READ["Web Mercator"][0], "", "line 2: lon '102"),
    "Web Mercator, the key": (READ["Web Mercator"][0], "", 'look like metres of Web Mercator: set crs = "EPSG:3857"'),
    "UTM": (
        rows(lambda v, t, x, y: "{},{},{},{}".format(v, t.isoformat(), *UTM.transform(x, y)),
             "vehicle,timestamp,x,y").encode(), "", "set crs = \"EPSG:",
    ),
    "microdegrees": (READ["microdegrees"][0], "", "look like microdegrees: set scale = 1e-06 under ["),
    "E7": (csv("{v},{t:%FT%T%z},{xm}0,{ym}0"), "", "(E7): set scale = 1e-07"),
    "longitudes from 0 to 360": (csv("{v},{t:%FT%T%z},351.5,{y}"), "", 'set crs = "EPSG:4326"'),
    "no position": (csv("{v},{t:%FT%T%z},0,0"), "", "they are all 0, which no vehicle is"),
    "clock digits": (
        timed("%Y%m%d%H%M%S"), "",
        "line 2: time '20240321100000'; line 3: time '20240321100100'; line 4: time '20240321100200'; they look like "
        'clock digits run together: set time_format = "%Y%m%d%H%M%S" under [cities.small.feed]',
    ),
    "seconds of a simulation": (csv("{v},{t.minute}.0,{x},{y}"), "", "seconds since the start of a simulation"),
    "Excel's day numbers": (
        csv("{v},45356.416667,{x},{y}"), "", "day numbers (45356.4 is 2024-03-05 10:00): set time_format = \"excel\"",
    ),
    # The first records show that a column was guessed wrongly
    "ids of rows": (
        rows(lambda v, t, x, y: f"{v}{t:%H%M}9,{v},{t.isoformat()},{x},{y}", "id,user_id,time,lon,lat").encode(), "",
        "column 'id' looks like the number of the row; name the right one under [cities.small.feed.columns]",
    ),
    "numbers of rows": (
        "\n".join(["vehicle,car,time,lon,lat", *(f"{i},{row}" for i, row in enumerate(BODY.splitlines()))]).encode(),
        "", "column 'vehicle' looks like the number of the row",
    ),
    "dates alone": (timed("%Y-%m-%d"), "", "are all at midnight: column 'timestamp' has no time of day"),
    "hours alone": (
        rows(lambda v, t, x, y: f"{v},{t:%Y-%m-%dT%H}:00:00,{x},{y}", "vehicle,timestamp,lon,lat").encode(), "",
        "column 'timestamp' lacks a part of the time",
    ),
    "clocks 1,024 weeks back": (
        PLAIN.replace("cab1,2024-03-21T10:0", "cab1,2004-08-05T10:0").encode(), "",
        "10 of the first records of", 
    ),
    "clocks 1,024 weeks back, the advice": (
        PLAIN.replace("cab1,2024-03-21T10:0", "cab1,2004-08-05T10:0").encode(), "",
        "GPS clocks that count weeks anew): the first is of 2004-08-05T",
    ),
    "no known word of occupied": (
        rows(lambda v, t, x, y: f"{v},{t.isoformat()},{x},{y},{'AB'[t.minute > 9]}", "vehicle,timestamp,lon,lat,hired"
             ).encode(), "[cities.small.feed]\ntrips = true\n",
        "column 'hired' has values that do not say whether a vehicle is occupied: 'A', 'B'; list those that mean so "
        "under [cities.small.feed], such as occupied_values = [\"A\"], and all others mean that it is free",
    ),
    "no value of occupied": (
        rows(lambda v, t, x, y: f"{v},{t.isoformat()},{x},{y},-1", "vehicle,timestamp,lon,lat,hired").encode(),
        "[cities.small.feed]\ntrips = true\n", "no value of column 'hired' says whether a vehicle is occupied",
    ),
    "the year 1900": (csv("{v},1900-03-05 10:00:00,{x},{y}"), "", "line 2: time '1900-03-05 10:00:00'"),
}  # fmt: skip


@pytest.mark.parametrize("layout", REFUSED)
def test_it_is_refused_with_the_key_that_helps(
    layout: str, trafficcast: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    content, feed, told = REFUSED[layout]
    (tmp_path / "records.txt").write_bytes(content)
    config.write_text(config.read_text() + feed)
    ran = trafficcast("ingest", tmp_path / "records.txt")
    assert ran.code in (1, 2), ran
    assert told in ran.err and "Traceback" not in ran.err
    assert not (tmp_path / "data" / "small" / "flows").exists()


@pytest.mark.parametrize(
    ("occupied", "free", "feed"),
    [("HIRED", "For Hire", ""), ("重车", "空车", ""), ("POB", "STC", 'occupied_values = ["POB"]\n')],
)
def test_trips_by_the_words_for_occupied(
    occupied: str, free: str, feed: str, trafficcast: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    config.write_text(config.read_text() + "[cities.small.feed]\ntrips = true\n" + feed)
    reports = []
    for words in (("1", "0"), (occupied, free)):
        text = rows(lambda v, t, x, y, of=words: f"{v},{t.isoformat()},{x},{y},{of[t.minute // 10 % 2]}",
                    "vehicle,timestamp,lon,lat,occupied")  # fmt: skip
        if words == ("1", "0") and feed:
            text = text.replace(",1\n", ",POB\n")  # as then 0 and all else mean free
        (tmp_path / "records.csv").write_text(text)
        ran = trafficcast("ingest", tmp_path / "records.csv", "--json")
        assert ran.code == 0, ran.err
        reports.append(ran.json)
        shutil.rmtree(tmp_path / "data")
    assert reports[0] == reports[1]
    assert reports[0]["inflow"] == reports[0]["outflow"] + 5 > 10  # the first trip of each cab was under way


def test_a_time_that_month_and_day_share_is_told_by_any_row_of_the_file(
    trafficcast: Callable[..., Any], tmp_path: Path
) -> None:
    late = timed("%d/%m/%Y %H:%M").splitlines()
    early = timed("%d/%m/%Y %H:%M").replace(b"21/", b"04/").splitlines()[1:]
    (tmp_path / "records.csv").write_bytes(b"\n".join([late[0], *early, *late[1:]]))
    ran = trafficcast("ingest", tmp_path / "records.csv", "--json")
    assert ran.code == 0, ran.err
    assert flows(ran.json) == (600, 5, 2 * FLOW, 2 * FLOW)
    assert "times are written as %d/%m/%Y %H:%M" in ran.err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_configuration_may_have_a_byte_order_mark(
    encoding: str, trafficcast: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    config.write_text(config.read_text(), encoding=encoding)
    (tmp_path / "records.csv").write_text(PLAIN)
    assert flows(trafficcast("ingest", tmp_path / "records.csv", "--json").json)[0] == 300


@pytest.mark.parametrize(
    ("feed", "told"),
    [
        ('encoding = "utf-88"', "'utf-88' is no encoding of text"),
        ('encoding = "base64"', "'base64' is no encoding of text"),
        ('time_format = "%d.%m. %H:%M"', "is no format of whole dates"),
        ('time_format = "%d.%m.%Q"', "is no format of whole dates"),
        ('time_format = "%d.%m.%Y %I:%M"', "%I, the hour of twelve, and %p, AM or PM, go together"),
        ('time_format = "%d.%d.%Y"', "a part of a time twice"),
    ],
)
def test_a_feed_that_makes_no_sense_is_refused(
    feed: str, told: str, trafficcast: Callable[..., Any], config: Path
) -> None:
    config.write_text(f"{config.read_text()}[cities.small.feed]\n{feed}\n")
    ran = trafficcast("quality")
    assert ran.code == 2
    assert told in ran.err and "cities.small.feed" in ran.err


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_wholly_dropped_among_others_is_named(
    packed: bool, trafficcast: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    """In a folder and in an archive: exit code 1 in a plain ingest, quarantine in the inbox."""
    files = {"good.csv": PLAIN.encode(), "projected.csv": READ["Web Mercator"][0]}
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for name, data in {"week.zip": zipped(files)}.items() if packed else files.items():
        (inbox / name).write_bytes(data)
        os.utime(inbox / name, (1, 1))
    config.write_text(config.read_text() + '[cities.small.feed]\ninbox = "inbox"\n')
    ran = trafficcast("ingest", inbox)
    assert ran.code == 1
    assert "no record of" in ran.err and "projected.csv is left to count" in ran.err
    assert not (tmp_path / "data" / "small" / "flows").exists()
    time.sleep(5.1)  # a file that changed a moment ago is left alone
    look = trafficcast("ingest", "--json").json
    bad = "week.zip" if packed else "projected.csv"
    assert "EPSG:3857" in look["quarantined"][bad]
    assert flows(look["report"]) == (300, 5, FLOW, FLOW)


def test_a_file_outside_of_the_period_among_others_is_no_mistake(
    trafficcast: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "gps").mkdir()
    (tmp_path / "gps" / "now.csv").write_text(PLAIN)
    (tmp_path / "gps" / "before.csv").write_text(PLAIN.replace("2024-03-21", "2024-03-11"))
    ran = trafficcast("ingest", tmp_path / "gps", "--start", "2024-03-20", "--json")
    assert ran.code == 0, ran.err
    assert flows(ran.json) == (300, 5, FLOW, FLOW)


def test_a_city_across_the_antimeridian(trafficcast: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    edges = {"west = 9.10": "west = 179.92", "east = 9.26": "east = -179.92"}
    text = config.read_text()
    for old, new in edges.items():
        text = text.replace(old, new)
    config.write_text(text)
    moved = csv("{v},{t:%FT%T%z},{moved:.6f},{y}")
    (tmp_path / "records.csv").write_bytes(moved)
    assert b",-179." in moved and b",179." in moved
    ran = trafficcast("ingest", tmp_path / "records.csv", "--json")
    assert ran.code == 0, ran.err
    assert flows(ran.json) == (300, 5, FLOW, FLOW)


PATHS = {
    "a vehicle, as Spark writes it": ("vehicle_id={vehicle}/part.parquet", "", "lon,lat,timestamp"),
    "a vehicle, as the feed says": (
        "tracks/{vehicle}/gps.csv", '[cities.small.feed]\npath = "{vehicle}/gps.csv"\n', "",
    ),
    "a vehicle and a date": (
        "{vehicle}_20240321.csv",
        '[cities.small.feed]\npath = "{vehicle}_{date}.csv"\ntime_format = "%Y%m%d %H:%M:%S"\n', "",
    ),
    "a vehicle and a date, as Spark writes them": ("date=2024-03-21/vehicle={vehicle}/part.csv", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", PATHS)
def test_a_vehicle_or_a_date_may_be_in_the_path(
    kind: str, trafficcast: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    path, feed, parquet_columns = PATHS[kind]
    config.write_text(config.read_text() + feed)
    for vehicle in {point[0] for point in POINTS}:
        own = [point for point in POINTS if point[0] == vehicle]
        file = tmp_path / "gps" / path.format(vehicle=vehicle)
        file.parent.mkdir(parents=True, exist_ok=True)
        if parquet_columns:
            pq.write_table(
                pa.table({"timestamp": [p[1] for p in own], "lon": [p[2] for p in own], "lat": [p[3] for p in own]}),
                file,
            )
        else:
            form = "%H:%M:%S" if "date" in kind else "%Y-%m-%d %H:%M:%S"
            lines = [f"{t.astimezone(ROMAN):{form}},{x},{y}" for _, t, x, y in own]
            file.write_text("\n".join(["time,lon,lat", *lines]))
    ran = trafficcast("ingest", tmp_path / "gps", "--json")
    assert ran.code == 0, ran.err
    assert flows(ran.json) == (300, 5, FLOW, FLOW)


def test_two_vehicles_whose_files_are_alike_are_two(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    for vehicle in ("a", "b"):
        (tmp_path / "gps" / f"vehicle={vehicle}").mkdir(parents=True)
        (tmp_path / "gps" / f"vehicle={vehicle}" / "part.csv").write_text(
            "time,lon,lat\n2024-03-21 10:00:00,9.2,45.5\n"
        )
    ran = trafficcast("ingest", tmp_path / "gps", "--json")
    assert ran.code == 0, ran.err
    assert flows(ran.json)[:2] == (2, 2)


def test_positions_of_gtfs_realtime(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    """A message a minute, as an agency gives them; positions are of single precision."""
    realtime = pytest.importorskip("google.transit.gtfs_realtime_pb2")
    (tmp_path / "gps").mkdir()
    for moment in sorted({point[1] for point in POINTS}):
        message = realtime.FeedMessage()
        message.header.gtfs_realtime_version = "2.0"
        message.header.timestamp = int(moment.timestamp())
        message.entity.add(id="alert").alert.header_text.translation.add(text="Works")
        for i, (vehicle, _, lon, lat) in enumerate(point for point in POINTS if point[1] == moment):
            entity = message.entity.add(id=str(i))
            entity.vehicle.vehicle.id = vehicle
            entity.vehicle.position.longitude, entity.vehicle.position.latitude = lon, lat
            if vehicle != "cab0":
                entity.vehicle.timestamp = int(moment.timestamp())
        (tmp_path / "gps" / f"{moment:%H%M}.pb").write_bytes(message.SerializeToString())
    ran = trafficcast("ingest", tmp_path / "gps", "--json")
    assert ran.code == 0, ran.err
    assert flows(ran.json) == (300, 5, FLOW, FLOW)
    message = realtime.FeedMessage()
    message.header.gtfs_realtime_version = "2.0"
    message.entity.add(id="1").trip_update.trip.trip_id = "7"
    (tmp_path / "trips.pb").write_bytes(message.SerializeToString())
    ran = trafficcast("ingest", tmp_path / "trips.pb")
    assert ran.code == 2
    assert "has no positions of vehicles" in ran.err


def test_a_dry_run_shows_how_the_first_rows_would_be_read(
    trafficcast: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    (tmp_path / "records.csv").write_bytes(b"a title\n" + timed("%d.%m.%Y %H:%M"))
    ran = trafficcast("ingest", tmp_path / "records.csv", "--check", "--json")
    assert ran.code == 0, ran.err
    [look] = ran.json["read"]
    assert look["rows"][0] == {
        "vehicle": "cab0", "time": "2024-03-21T10:00:00+01:00", "longitude": LON[0], "latitude": LAT[0],
        "occupied": "unknown",
    }  # fmt: skip
    assert len(look["rows"]) == 10 and look["format"] == "csv" and look["in_box"] == 1
    assert look["notes"] == [
        "vehicle is column 'vehicle'", "time is column 'timestamp'", "lon is column 'lon'", "lat is column 'lat'",
        "its header is line 2", "times are written as %d.%m.%Y %H:%M", "times without an offset are in Europe/Rome",
    ]  # fmt: skip
    shown = trafficcast("ingest", tmp_path / "records.csv", "--check")
    assert "2024-03-21T10:00:00+01:00" in shown.out and "its header is line 2" in shown.out
    assert not (tmp_path / "data").exists()
    (tmp_path / "records.csv").write_bytes(READ["Web Mercator"][0])
    ran = trafficcast("ingest", tmp_path / "records.csv", "--check")
    assert ran.code == 1 and "EPSG:3857" in ran.err
    assert trafficcast("ingest", "--check").code == 2


def test_a_line_of_nul_bytes_costs_itself_only(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "gps").mkdir()
    middle = len(PLAIN) // 2 + PLAIN[len(PLAIN) // 2 :].index("\n") + 1
    for name, at in (("early.csv", len("vehicle,timestamp,lon,lat\n")), ("late.csv", middle)):
        (tmp_path / "gps" / name).write_text(PLAIN[:at] + "\0" * 500 + "\n" + PLAIN[at:])
    ran = trafficcast("ingest", tmp_path / "gps", "--json")
    assert ran.code == 0, ran.err
    assert flows(ran.json) == (300, 5, FLOW, FLOW)
    assert ran.json["rows_dropped"]["unparsable"] == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (zipped({"[Content_Types].xml": b"<x/>", "xl/worksheets/sheet1.xml": b"<x/>"}), "save its sheet as CSV"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive: unpack it first"),
        (b"SQLite format 3\0", "a SQLite database"),
    ],
)
def test_what_people_take_for_records_is_named(
    content: bytes, told: str, trafficcast: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "records").write_bytes(content)
    ran = trafficcast("ingest", tmp_path / "records")
    assert ran.code == 2 and told in ran.err


def test_wrong_clocks_may_be_dropped(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text(PLAIN.replace("cab1,2024-03-21T10:0", "cab1,2004-08-05T10:0"))
    ran = trafficcast("ingest", tmp_path / "records.csv", "--start", "2024-03-21", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rows_dropped"]["timestamp"] == 10


def test_a_closed_archive_in_an_archive_is_named(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "week.zip").write_bytes(zipped({**HALVES, "more.7z": b"7z\xbc\xaf\x27\x1c\0\4" * 9}))
    ran = trafficcast("ingest", tmp_path / "week.zip")
    assert ran.code == 1 and "week.zip/more.7z: it is a 7z archive: unpack it first" in ran.err
