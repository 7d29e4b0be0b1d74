"""Files that unpack to far more than memory: one sentence, and no process larger than the budget."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trafficcast.ingestion import threads
from trafficcast.records import sources
from trafficcast.records.readers import cell_values, delimited, gtfs_realtime, json_lines, parquet_pages, table

BUDGET_MB = 1024
LIMIT = 5 << 30  # bytes of a child, so that a test that fails does no harm
MB = 1 << 20
NOON = 1_712_570_400
HEADER = b"vehicle,time,lon,lat\n"


def packed(begin: bytes, chunk: bytes, times: int, end: bytes = b"") -> bytes:
    """A gzip of a text in which a chunk is repeated."""
    return gzip.compress(begin) + gzip.compress(chunk, 6) * times + gzip.compress(end)


def parquet(rows: int = 1, group: int | None = None, **columns: pa.Array) -> bytes:
    sink = io.BytesIO()
    whole = {name: pa.repeat(value, rows) for name, value in (("vehicle", "t"), ("time", NOON), ("lon", 9.15))}
    pq.write_table(
        pa.table({**whole, "lat": pa.repeat(45.47, rows), **columns}), sink, compression="zstd",
        row_group_size=group or rows, use_dictionary=["time"], store_schema=False, data_page_size=2**31 - 1,
        dictionary_pagesize_limit=2**31 - 1,
    )  # fmt: skip
    return sink.getvalue()


def repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


def many_files() -> bytes:
    """A zip of an archive whose list of files takes 20 MB, and a few kilobytes."""
    name = b"n" * 60_000
    one = b"PK\x01\x02" + bytes(24) + len(name).to_bytes(2, "little") + bytes(16) + name
    n = 20 * MB // len(one)
    end = b"PK\x05\x06" + bytes(4) + 2 * n.to_bytes(2, "little") + (n * len(one)).to_bytes(4, "little") + bytes(6)
    return zipped("in.zip", one * n + end)


def zipped(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED, times: int = 1) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive, archive.open(name, "w", force_zip64=True) as file:
        for _ in range(times):
            file.write(content)
    return sink.getvalue()


def long_name() -> bytes:
    """A tar archive in which a file's name has a gigabyte."""
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    return packed(head.tobuf(tarfile.GNU_FORMAT), bytes(MB), 32, bytes(1024))


ROW = b"t1,%d,9.15,45.47\n" % NOON
# A name, what makes the bytes of the file, and what is said.
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "line.csv.gz": (lambda: packed(HEADER, b"1" * MB, 1100), "a line of more than 16 MB"),
    "open_quote.csv.gz": (lambda: packed(HEADER + b'"', b"1" * MB, 1100), "a line of more than 16 MB"),
    "columns.csv": (lambda: HEADER[:-1] + b"".join(b",c%d" % i for i in range(10**6)) + b"\n" + ROW, "is a record"),
    "names.csv.gz": (lambda: packed(HEADER, b"t" * 5 * MB + ROW, 8), "is a record"),
    "element.json.gz": (
        lambda: packed(b'{"a": [\n{"id": "t", "ts": 1712570400, "lon": 9.1, "lat": 45.5}, {"x": [', b"[]," * MB, 500),
        "more than 4 MB",
    ),
    "lines.jsonl": (
        lambda: b'{"id": "t", "ts": 1712570400, "lon": 9.1, "lat": 45.47}\n' + (b'{"x":[' + b"[]," * MB + b"1]}\n") * 9,
        "",
    ),
    "polyline.csv.gz": (
        lambda: packed(
            b'"TRIP_ID","TAXI_ID","TIMESTAMP","MISSING_DATA","POLYLINE"\n"1","2","1712570400","False","[',
            b"[9.15,45.47]," * 90_000, 1000,
        ),
        "a line of more than 16 MB",
    ),
    "long_polyline.csv": (
        lambda: b'"TAXI_ID","TIMESTAMP","POLYLINE"\n"2","1712570400","[' + b"[9,45]," * 1_000_000 + b'[9]]"\n',
        "is a record",
    ),
    "message.pb.gz": (lambda: packed(b"\x0a\x0b\x0a\x032.0\x18\x80\xd0\xcd\xb0\x06", b"\x12\x03\x0a\x01a" * MB, 300),
                      "no message of positions"),
    "message.pb": (
        lambda: b"\x0a\x0b\x0a\x032.0\x18\x80\xd0\xcd\xb0\x06" + b"\x12\x03\x0a\x01a" * (8 * MB // 5 - 9),
        "positions",
    ),
    "new_cab.txt.gz": (
        lambda: packed(b"", b"45.4 9.1 0 %d\n" % NOON * 40_000, 210), "records in the hour of 2024-04-08T10",
    ),
    "new_line.txt.gz": (lambda: packed(b"45.4 9.1 0 1\n", b"1" * MB, 1100), "a line of more than 16 MB"),
    "lzma.zip": (lambda: zipped("a.csv", b"1" * MB, zipfile.ZIP_LZMA, 200), "of no known format"),
    "many.zip": (many_files, "list of files"),
    "name.tar.gz": (long_name, "a name in it"),
    "rows.parquet": (lambda: parquet(9_000_000), "records in the hour of 2024-04-08T10"),
    "time.parquet": (lambda: parquet(10**6, time=repeated("2024-04-08 12:00:00" + " " * 20_000, 10**6)), "unpacks to"),
    "value.parquet": (lambda: parquet(4, time=repeated("2024-04-08" + " " * 20 * MB, 4)), "a row of more than 16 MB"),
    "texts.parquet": (
        lambda: parquet(9_000, vehicle=pa.array(["x" * 100_000] * 9_000)), "row group 1 has pages of more than 512 MB",
    ),
    "values.parquet": (
        lambda: parquet(80, time=pa.array([f"{i}" + " " * MB for i in range(80)])), "values of more than 64 MB",
    ),
    "list.parquet": (
        lambda: parquet(
            time=pa.ListArray.from_arrays(pa.array([0, 4 * 10**7], pa.int32()), pa.repeat(NOON, 4 * 10**7))
        ),
        "values in lists",
    ),
}  # fmt: skip

# Each file is ingested by the command, and the process then says how large it was at most.
CHILD = """
import contextlib, io, json, logging, sys, time
from pathlib import Path
from pipelines.cli import main as cli

config, *files = sys.argv[1:]
for file in files:
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["trafficcast", "ingest", file, "--config", config]
    logging.getLogger("trafficcast").handlers = []
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    Path("/proc/self/clear_refs").write_text("5")
    print(json.dumps([file, code, err.getvalue()[-2000:], int(peak) >> 10]), flush=True)
"""


@pytest.mark.slow
def test_bombs_are_refused_in_a_sentence_and_take_no_more_memory_than_the_budget(config: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell how large a process was at most")
    import resource

    for name, (make, _) in BOMBS.items():
        (tmp_path / name).write_bytes(make())

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))

    words = [sys.executable, "-c", CHILD, str(config), *(str(tmp_path / name) for name in BOMBS)]
    ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, preexec_fn=limited)  # noqa: PLW1509
    assert ran.returncode == 0
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [os.path.basename(file) for file, *_ in found] == list(BOMBS)
    for file, code, err, peak in found:
        said = BOMBS[os.path.basename(file)][1]
        assert "Traceback" not in err, (file, err)
        assert code == (2 if said else 0) and said in err, (file, code, err)
        assert peak < BUDGET_MB, (file, peak)


def test_the_page_on_ingestion_names_the_limits() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ingestion.md").read_text()
    for line in (
        f"| a line of text, a row of Parquet | {delimited._LINE_BYTES >> 20} MB |",
        f"| a message of GTFS Realtime | {gtfs_realtime._MESSAGE_BYTES >> 20} MB |",
        f"| a JSON object, a polyline that is not written as usual | {json_lines._OBJECT_BYTES >> 20} MB |",
        f"| {sources._UNPACKED_BYTES >> 30} GB or {sources._UNPACKED_TIMES} times its size, whichever is more |",
        f"| files of an archive | {sources._MOST_FILES:,} |",
        f"| a page of each needed column of a Parquet file | {parquet_pages._PAGES_BYTES >> 20} MB together |",
        f"| the different values of a text column, in a row group | {parquet_pages._DICTIONARY_BYTES >> 20} MB |",
        f"| records of one hour, in one file | {threads._HOUR_RECORDS // 10**6} million |",
        f"in one file of local times | {table._WITHHELD_RECORDS // 10**6} million |",
        f"| vehicles that a file adds to those of the city | {threads._NEW_VEHICLES // 10**6} million |",
        f"The name of a vehicle has {cell_values._NAME_LETTERS} letters at most",
        f"leaves {sources._FREE_BYTES >> 30} GB of the disk free",
    ):
        assert line in page, line
