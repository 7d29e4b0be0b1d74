"""Bad input: one clear sentence on stderr, exit code 2, no traceback, and every store as it was."""

from __future__ import annotations

import gzip
import os
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PERIOD = ("--start", "2024-04-14", "--end", "2024-04-15")


@pytest.fixture
def ingested(trafficcast: Callable[..., Any], tmp_path: Path) -> Path:
    """Three simulated days in the stores."""
    trafficcast("simulate", "--vehicles", 20, "--days", 3, "--out", tmp_path / "gps")
    assert trafficcast("ingest", tmp_path / "gps").code == 0
    return tmp_path


def test_each_is_one_sentence_and_changes_nothing(
    ingested: Path, trafficcast: Callable[..., Any], snapshot: Callable[[Path], dict[str, bytes]]
) -> None:
    (ingested / "empty").mkdir()
    (ingested / "new_drive.txt").write_text("1,2008-02-02 15:36:08,116.51172,39.92123\n" * 3)
    with gzip.open(ingested / "new_picture.txt.gz", "wb") as file:
        file.write(bytes(range(256)) * 9)
    (ingested / "new_cut.txt.gz").write_bytes(gzip.compress(b"45.5 9.2 0 1712600000\n" * 99)[:-9])
    before = snapshot(ingested)
    calls = {
        ("ingest", ingested / "nowhere"): "nothing at",
        ("ingest", ingested / "empty"): "nothing at",
        ("ingest", ingested / "new_drive.txt", "--format", "cabspotting"): "new_drive.txt is not a Cabspotting file",
        ("ingest", ingested / "new_picture.txt.gz"): "new_picture.txt.gz is not a Cabspotting file",
        ("ingest", ingested / "new_cut.txt.gz"): "cannot read",
        ("ingest", ingested / "gps", "--format", "cabspoting"): "unknown format",
        ("ingest", ingested / "gps", "--city", "smal"): "did you mean 'small'",
        ("ingest", ingested / "gps", "--start", "yesterday"): "no date or time",
        ("train", "--model", "vmrnn-x"): "unknown model",
        ("train", "--train-end", "2024-04-09"): "--valid-end",
        ("train", "--train-end", "2024-04-10", "--valid-end", "2024-04-09"): "not in order",
        ("train", "--train-end", "2024-04-08T06:00", "--valid-end", "2024-04-09"): "eight contiguous",
        ("train", "--device", "abacus"): "no device 'abacus'",
        ("train", "--resume", "--train-end", "2024-04-09", "--valid-end", "2024-04-10"): "nothing to resume",
        ("backtest", *PERIOD): "no model yet",
        ("forecast",): "no model yet",
        ("export", "--out", ingested / "x.nc", "--start", "2030-01-01"): "no flows in that period",
        ("export", "--out", ingested / "x.nc", "--format", "csv"): "unknown format",
        ("export", "--out", ingested / "no" / "x.nc"): "no folder",
        ("models", "promote", "vmrnn-b-9"): "no model 'vmrnn-b-9'",
        ("forecast", "--config", ingested / "none.toml"): "cannot read the configuration",
        ("simulate", "--out", ingested / "gps"): "gps",
    }
    for call, sentence in calls.items():
        ran = trafficcast(*call)
        assert ran.code == 2, (call, ran)
        assert sentence in ran.err, (call, ran.err)
        assert "Traceback" not in ran.err and ran.out == "", (call, ran)
    assert snapshot(ingested) == before


def test_a_typo_in_the_configuration_names_the_key_and_the_nearest(
    trafficcast: Callable[..., Any], config: Path
) -> None:
    config.write_text(config.read_text().replace("rows =", "rowz ="))
    ran = trafficcast("forecast")
    assert ran.code == 2
    assert "cities.small.rowz" in ran.err and "did you mean 'rows'" in ran.err


def test_a_box_upside_down_is_refused(trafficcast: Callable[..., Any], config: Path) -> None:
    config.write_text(config.read_text().replace("south = 45.42", "south = 45.62"))
    ran = trafficcast("forecast")
    assert ran.code == 2
    assert "upside down" in ran.err and "cities.small" in ran.err


def test_too_few_slots_to_train(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    trafficcast("simulate", "--vehicles", 5, "--days", 1, "--out", tmp_path / "gps")
    trafficcast("ingest", tmp_path / "gps", "--end", "2024-04-08T06:00")
    ran = trafficcast("train")
    assert ran.code == 2
    assert "too few to split" in ran.err


def test_commands_say_so_where_nothing_was_ingested(trafficcast: Callable[..., Any]) -> None:
    for call in (("train",), ("export", "--out", "x.nc")):
        ran = trafficcast(*call)
        assert ran.code == 2
        assert "ingest" in ran.err


# Records of every bad kind

NOON = 1_712_570_400
HEADER = "vehicle,time,lon,lat\n"
ROWS = [f"{i % 5},{NOON + 7 * i},{9.11 + i % 13 / 100},{45.43 + i % 7 / 100}\n" for i in range(500)]


def table(*rows: str) -> bytes:
    return (HEADER + "".join(rows)).encode()


def scaled(factor: int) -> bytes:
    cells = (row.split(",") for row in ROWS)
    return table(*(f"{vehicle},{int(time) * factor + 3},{lon},{lat}" for vehicle, time, lon, lat in cells))


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


SWAPPED = table(*(",".join((*row.split(",")[:2], row.split(",")[3].strip(), row.split(",")[2] + "\n")) for row in ROWS))
MANY = 100_000
COUNTED = {
    # name, content, points kept, vehicles, rows dropped, what is said
    "mixed line endings": (HEADER.encode() + "".join(ROWS).replace("7\n", "7\r\n").encode(), 500, 5, {}, ""),
    "a header in the middle": (table(*ROWS[:250], HEADER, *ROWS[250:]), 500, 5, {"unparsable": 1}, ""),
    "a byte order mark": (b"\xef\xbb\xbf" + table(*ROWS), 500, 5, {}, ""),
    "no finite place": (
        table(*ROWS, f"1,{NOON},nan,45.5\n", f"1,{NOON},9.1,inf\n", f"1,{NOON},-Infinity,1\n"),
        500, 5, {"unparsable": 3}, "",
    ),
    "milliseconds": (scaled(1_000), 500, 5, {}, "times are in milliseconds"),
    "microseconds": (scaled(1_000_000), 500, 5, {}, "times are in microseconds"),
    "1970 and 2099": (table(*ROWS, "1,5,9.1,45.5\n", "1,4070908800,9.1,45.5\n"), 500, 5, {"timestamp": 2}, ""),
    "negative and huge ids": (
        table(*ROWS, *(f"{v},{NOON},9.1,45.5\n" for v in (-5, 2**64 - 1, 10**30))), 503, 8, {}, "",
    ),
    "odd ids": (
        table(*ROWS, *(f"{v},{NOON},9.1,45.5\n" for v in ('"a,b ""c"""', "Stra\u00dfe \u03a9", "<script>"))),
        503, 8, {}, "",
    ),
    "a field too few and too many": (table(*ROWS, "1,2,3\n", "1,2,3,4,5\n"), 500, 5, {"unparsable": 2}, ""),
    "many vehicles of one point": (
        parquet(vehicle=np.arange(MANY), time=np.full(MANY, NOON), lon=np.full(MANY, 9.15), lat=np.full(MANY, 45.5)),
        MANY, MANY, {}, "",
    ),
    "one vehicle of many points": (
        parquet(
            vehicle=np.zeros(MANY, int), time=NOON * 1_000 + np.arange(MANY) * 10,
            lon=np.full(MANY, 9.15), lat=np.full(MANY, 45.5),
        ),
        MANY, 1, {}, "times are in milliseconds",
    ),
    "a Parquet of texts": (
        parquet(vehicle=["a", "b"], time=["2024-04-08 12:00", "2024-04-08"], lon=["9.15", "x"], lat=["45.5", "45.5"]),
        1, 1, {"unparsable": 1}, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COUNTED)
def test_odd_rows_are_dropped_and_counted(kind: str, trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    content, points, vehicles, dropped, said = COUNTED[kind]
    (tmp_path / "records.csv").write_bytes(content)
    ran = trafficcast("ingest", tmp_path / "records.csv", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["points_kept"], ran.json["vehicles"]) == (points, vehicles)
    assert {reason: n for reason, n in ran.json["rows_dropped"].items() if n} == dropped
    assert said in ran.err and "Traceback" not in ran.err


REFUSED = {
    "a truncated gzip": (gzip.compress(table(*ROWS))[:-30], 2, "cannot read"),
    "bytes of anything": (random.Random(0).randbytes(9_999), 2, "of no known format"),
    "swapped coordinates": (SWAPPED, 1, "are swapped"),
    "a table of other columns": (b"a,b,c\n" + b"x,y,z\n" * 9, 2, "of no known format"),
    "an empty Parquet": (parquet(vehicle=pa.array([], pa.int64()), time=pa.array([], pa.int64()),
                                 lon=pa.array([], pa.float64()), lat=pa.array([], pa.float64())), 2, "left to count"),
    "a Parquet of other types": (
        parquet(vehicle=["a"], time=[NOON], lon=pa.array([True]), lat=[45.5]), 2, "lon"),
    "a truncated Parquet": (parquet(vehicle=["a"], time=[NOON], lon=[9.1], lat=[45.5])[:-9], 2, "cannot read"),
    "an empty file": (b"", 2, "no records"),
    "a header alone": (HEADER.encode(), 2, "left to count"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_bad_files_are_refused_with_every_store_as_it_was(
    kind: str, trafficcast: Callable[..., Any], snapshot: Callable[[Path], dict[str, bytes]], tmp_path: Path
) -> None:
    content, code, said = REFUSED[kind]
    (tmp_path / "records.csv").write_bytes(content)
    ran = trafficcast("ingest", tmp_path / "records.csv")
    assert ran.code == code, ran
    assert said in ran.err and "Traceback" not in ran.err and ran.out == ""
    assert snapshot(tmp_path / "data") == {}
    (tmp_path / "good.csv").write_bytes(table(*ROWS))
    trafficcast("ingest", tmp_path / "good.csv")
    before = snapshot(tmp_path / "data")
    again = trafficcast("ingest", tmp_path / "records.csv")
    if kind not in ("an empty Parquet", "an empty file", "a header alone"):  # which add nothing to a store
        assert again.code == code
        assert snapshot(tmp_path / "data") == before


def test_swapped_coordinates_are_read_where_the_configuration_says_so(
    trafficcast: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    (tmp_path / "swapped.csv").write_bytes(SWAPPED)
    (tmp_path / "good.csv").write_bytes(table(*ROWS))
    good = trafficcast("ingest", tmp_path / "good.csv", "--json").json
    config.write_text(config.read_text().replace("cities.small", "cities.swapped").replace('"small"', '"swapped"'))
    config.write_text(config.read_text() + "[cities.swapped.feed]\nswapped = true\n")
    swapped = trafficcast("ingest", tmp_path / "swapped.csv", "--json").json
    assert {**swapped, "city": "small"} == good


def test_a_folder_nobody_may_read_is_named(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every folder")
    (tmp_path / "closed").mkdir(mode=0)
    ran = trafficcast("ingest", tmp_path / "closed")
    assert ran.code == 2 and "closed" in ran.err and "Traceback" not in ran.err


def test_all_bad_files_are_named_at_once_and_nothing_is_stored(
    trafficcast: Callable[..., Any], tmp_path: Path, config: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rows = "".join(
        f"cab{i % 9},2024-03-05T{i // 3600 % 24:02d}:{i // 60 % 60:02d}:{i % 60:02d}Z,9.{120 + i % 100},45.47\n"
        for i in range(5_000)
    )
    text = b"vehicle,timestamp,lon,lat\n" + rows.encode()
    (folder / "good.csv").write_bytes(text)
    (folder / "cut.csv.gz").write_bytes(gzip.compress(text)[:-9])
    (folder / "closed.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(99))
    (folder / "swapped.csv").write_bytes(text.replace(b"lon,lat", b"lat,lon"))
    (folder / "early.csv").write_bytes(text.replace(b"2024", b"1924"))
    with zipfile.ZipFile(folder / "damaged.zip", "w") as archive:
        archive.writestr("a.csv", text)
    damaged = bytearray((folder / "damaged.zip").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / "damaged.zip").write_bytes(damaged)
    ran = trafficcast("ingest", folder)
    assert ran.code == 1
    error = ran.err.splitlines()[-1]
    for named in (
        f"cannot read {folder}/cut.csv.gz: ",
        f"cannot read {folder}/closed.7z: it is a 7z archive: unpack it first",
        f"cannot read {folder}/damaged.zip/a.csv: Bad CRC-32",
        f"longitude and latitude are swapped in {folder}/swapped.csv",
        f"no record of {folder}/early.csv is left to count",
    ):
        assert named in error
    assert error.endswith("; no file was ingested: mend what is named, or leave it out")
    assert "good.csv" not in error
    assert not (tmp_path / "data" / "small" / "flows").exists()

    for file in folder.iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    config.write_text(config.read_text() + '\n[cities.small.feed]\ninbox = "in"\n')
    time.sleep(5.1)  # as the files were written just now
    look = trafficcast("ingest", "--json").json
    assert look["taken"] == ["good.csv"]
    assert sorted(look["quarantined"]) == ["closed.7z", "cut.csv.gz", "damaged.zip", "early.csv", "swapped.csv"]


def test_all_damaged_archives_are_named_at_once(trafficcast: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"PK\x03\x04" + bytes(50))
    ran = trafficcast("ingest", tmp_path / "in")
    assert ran.code == 2
    assert "in/a.zip: " in ran.err and "in/b.zip: " in ran.err
