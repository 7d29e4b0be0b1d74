"""TaxiBJ's files: dates, grids that come back as they were written, weather, holidays, ready windows."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cities import small_city
from trafficcast.config.city import City
from trafficcast.errors import InputError
from trafficcast.stores.flows import flows_dataset
from trafficcast.taxibj import files as taxibj
from trafficcast.taxibj.files import (
    _WEATHER_TYPES,
    _dates_of,
    _read_grids,
    _read_holidays_file,
    _read_weather_file,
    _times_of,
    _write_holidays,
    _write_weather,
    _write_windows,
    export_taxibj,
    read_windows,
)

HALF_HOUR = np.timedelta64(30, "m")
ROWS, COLS = 3, 2
HERE = Path("here.h5")


def city(timezone: str = "Asia/Shanghai", **changed: Any) -> City:
    return small_city(**{"rows": ROWS, "cols": COLS, "timezone": timezone, **changed})


def labels(day: str, *slots: int) -> list[bytes]:
    return [f"{day}{slot:02d}".encode() for slot in slots]


def grids(file: Path, dates: list[bytes], data: np.ndarray | None = None) -> np.ndarray:
    """Write a file in the official layout, of random counts as float64 unless data are given."""
    if data is None:
        data = np.random.default_rng(len(dates)).integers(0, 1293, (len(dates), 2, ROWS, COLS)).astype(np.float64)
    with h5py.File(file, "w") as hdf5:
        hdf5["data"] = data
        hdf5["date"] = np.array(dates, "S")
    return data


def utc(text: str) -> np.datetime64:
    return np.datetime64(text, "us")


# Dates


def test_dates_count_half_hours_of_the_local_day_from_01() -> None:
    dates = _dates_of(city(), utc("2008-06-03T15:30") + HALF_HOUR * np.arange(50))
    assert dates[:3].tolist() == [b"2008060348", b"2008060401", b"2008060402"]
    assert dates[-2:].tolist() == [b"2008060448", b"2008060501"]


def test_dates_of_a_repeated_hour_appear_twice_in_order() -> None:
    dates = _dates_of(city("America/New_York"), utc("2008-11-02T04:30") + HALF_HOUR * np.arange(6))
    assert [date.decode()[8:] for date in dates] == ["02", "03", "04", "03", "04", "05"]


def test_dates_of_a_skipped_hour_do_not_appear() -> None:
    dates = _dates_of(city("America/New_York"), utc("2008-03-09T06:30") + HALF_HOUR * np.arange(3))
    assert dates.tolist() == [b"2008030904", b"2008030907", b"2008030908"]


def test_zones_off_the_hour() -> None:
    half_past = np.array(["2008-06-03T18:30", "2008-06-03T19:00"], "datetime64[us]")
    assert _dates_of(city("Asia/Kolkata"), half_past).tolist() == [b"2008060401", b"2008060402"]
    quarter_past = np.array(["2008-06-03T18:15", "2008-06-03T18:30"], "datetime64[us]")
    assert _dates_of(city("Asia/Kathmandu", slot_minutes=15), quarter_past).tolist() == [b"2008060401", b"2008060402"]
    with pytest.raises(InputError, match="midnight in Asia/Kathmandu is not the start of a slot of 30 minutes"):
        _dates_of(city("Asia/Kathmandu"), half_past)
    with pytest.raises(InputError, match="midnight in Asia/Kathmandu is not the start of a slot of 30 minutes"):
        _times_of(city("Asia/Kathmandu"), np.array(labels("20080604", 1)), HERE)


def test_times_of_dates_are_slot_starts_in_utc() -> None:
    times = _times_of(city(), np.array(labels("20130701", 1, 2, 48)), HERE)
    assert times.tolist() == [utc(text).item() for text in ("2013-06-30T16:00", "2013-06-30T16:30", "2013-07-01T15:30")]


ZONES = ["America/New_York", "Asia/Shanghai", "America/St_Johns", "Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"]
CHANGES = ["2008-03-09", "2008-11-02", "2016-02-29", "2008-06-04", "2008-11-01"]


@pytest.mark.slow
@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.sampled_from(ZONES), st.sampled_from(CHANGES), st.sampled_from([5, 10, 15, 30]), st.integers(1, 1440))
def test_times_of_dates_of_times(zone: str, day: str, minutes: int, slots: int) -> None:
    # St. John's set its clocks back at 00:01 until 2011, so that two days' slots lie interleaved.
    there = city(zone, slot_minutes=minutes)
    start = there.slot_start(utc(day) - np.timedelta64(2, "h"))
    times = start + there.slot * np.arange(slots)
    assert (_times_of(there, _dates_of(there, times), HERE) == times).all()


def test_a_local_time_that_the_clocks_skip_is_no_time() -> None:
    times = _times_of(city("America/New_York"), np.array(labels("20080309", 4, 5, 6, 7)), HERE)
    assert np.isnat(times).tolist() == [False, True, True, False]
    assert times[3] - times[0] == HALF_HOUR
    assert np.isnat(_times_of(city("Pacific/Apia"), np.array(labels("20111230", 1, 48)), HERE)).all()


def test_a_repeated_date_that_comes_once_is_the_first_and_order_tells_the_second() -> None:
    def found(*slots: int) -> list[int]:
        times = _times_of(city("America/New_York"), np.array(labels("20081102", *slots)), HERE)
        return ((times - utc("2008-11-02T04:00")) // HALF_HOUR).tolist()

    assert found(1, 2, 3, 4, 5) == [0, 1, 2, 3, 6]
    assert found(2, 3, 4, 3, 4, 5) == [1, 2, 3, 4, 5, 6]
    assert found(4, 3) == [3, 4]
    assert found(3, 3) == [2, 4]


@pytest.mark.parametrize(
    ("dates", "zone"),
    [
        (labels("20130701", 1, 2, 2), "Asia/Shanghai"),
        (labels("20130701", 2, 1), "Asia/Shanghai"),
        (labels("20081102", 3, 4, 3, 4, 3), "America/New_York"),
        (labels("20081102", 2, 2), "America/New_York"),
    ],
)
def test_a_date_that_comes_twice_or_out_of_order(dates: list[bytes], zone: str) -> None:
    with pytest.raises(
        InputError, match=f"here.h5: date {dates[-1].decode()} at position {len(dates) - 1} comes twice"
    ):
        _times_of(city(zone), np.array(dates), HERE)


@pytest.mark.parametrize(
    "wrong",
    [
        b"2013130101", b"2013063101", b"2013070100", b"2013070149", b"201307011", b"20130701001", b"99990101010",
        b"1913070101", b"9913070101", b"2013-07-01", b"", b"yesterday!", b"\xff013070101", b" 013070101", b"2013070 01",
    ],
)  # fmt: skip
def test_what_is_no_date(wrong: bytes) -> None:
    with pytest.raises(InputError, match="here.h5: '.*' is not a date YYYYMMDDss with ss from 01 to 48"):
        _times_of(city(), np.array([b"2013070101", wrong], "S"), HERE)


# Grids


def test_a_file_becomes_flows_its_missing_slots_not_observed(tmp_path: Path) -> None:
    data = grids(tmp_path / "BJ13_M3x2_T30_InOut.h5", labels("20130701", 1, 2, 4, 7))
    found = _read_grids(tmp_path / "BJ13_M3x2_T30_InOut.h5", city())
    flows = found.flows
    assert (flows["time"].values == utc("2013-06-30T16:00") + HALF_HOUR * np.arange(7)).all()
    assert flows["observed"].values.tolist() == [True, True, False, True, False, False, True]
    assert flows["coverage"].values.tolist() == [1, 1, 0, 1, 0, 0, 1]
    assert flows["vehicles"].values.tolist() == [-1, -1, 0, -1, 0, 0, -1]
    assert (flows["flow"].values[[0, 1, 3, 6]] == data).all()
    assert not flows["flow"].values[[2, 4, 5]].any()
    assert (flows["flow"].sel(flow_kind="inflow").values[0] == data[0, 0]).all()
    assert (found.negative, found.skipped) == (0, 0)
    same = flows_dataset(city(), flows["time"].values, flows["flow"], flows["vehicles"], flows["coverage"])
    assert flows.identical(same)


def test_a_missing_slot_is_not_observed_in_whatever_city(tmp_path: Path) -> None:
    grids(tmp_path / "a.h5", labels("20130701", 1, 3))
    flows = _read_grids(tmp_path / "a.h5", city(min_coverage=0)).flows
    assert flows["observed"].values.tolist() == [True, False, True]


def test_negative_values_are_clipped_and_counted(tmp_path: Path) -> None:
    data = np.array([[[[-3, 5], [0, -1], [2, 2]]] * 2] * 2)
    grids(tmp_path / "a.h5", labels("20130701", 1, 2), data)
    found = _read_grids(tmp_path / "a.h5", city())
    assert found.negative == 8
    assert (found.flows["flow"].values == np.maximum(data, 0)).all()


def test_slots_of_a_skipped_hour_are_dropped_and_counted(tmp_path: Path) -> None:
    data = grids(tmp_path / "a.h5", labels("20080309", 3, 4, 5, 6, 7))
    found = _read_grids(tmp_path / "a.h5", city("America/New_York"))
    assert found.skipped == 2
    assert (found.flows["flow"].values == data[[0, 1, 4]]).all()
    assert found.flows["observed"].values.all()


def test_dates_of_any_length_string(tmp_path: Path) -> None:
    data = grids(tmp_path / "a.h5", labels("20130701", 1, 2))
    with h5py.File(tmp_path / "a.h5", "a") as hdf5:
        del hdf5["date"]
        hdf5.create_dataset("date", data=["2013070101", "2013070102"], dtype=h5py.string_dtype())
    assert (_read_grids(tmp_path / "a.h5", city()).flows["flow"].values == data).all()


def refused(file: Path, message: str, there: City | None = None) -> None:
    with pytest.raises(InputError, match=message):
        _read_grids(file, there or city())


def test_another_grid_or_slot_length_than_the_citys(tmp_path: Path) -> None:
    file = tmp_path / "BJ13_M3x2_T30_InOut.h5"
    grids(file, labels("20130701", 1, 2))
    refused(file, r"2 x 2 x 3 x 2.*'small' ask for 2 x 2 x 2 x 3", city(rows=2, cols=3))
    refused(file, "slots of 30 minutes, 'small' of 60", city(slot_minutes=60))
    grids(file, labels("20130701", 1), np.zeros((2, 2, ROWS, COLS)))
    refused(file, "2 x 2 x 3 x 2, where 1 dates")
    grids(file, labels("20130701", 1), np.zeros((1, 3, ROWS, COLS)))
    refused(file, "1 x 3 x 3 x 2")
    grids(file, labels("20130701", 1), np.zeros(1))
    refused(file, "holds grids 1, where")


@pytest.mark.parametrize("value", [1.5, np.nan, np.inf, 2.0**31])
def test_what_is_no_count(tmp_path: Path, value: float) -> None:
    grids(tmp_path / "a.h5", labels("20130701", 1), np.full((1, 2, ROWS, COLS), value))
    refused(tmp_path / "a.h5", "a.h5: data must be whole numbers")


def test_what_is_no_file_of_grids(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    file.write_text("2013070101,5,3")
    refused(file, "cannot read .*a.h5 as HDF5")
    with h5py.File(file, "w") as hdf5:
        hdf5["flow"] = np.zeros(3)
    refused(file, "a.h5 is not a file of TaxiBJ: it has no dataset data and no date")
    with h5py.File(file, "w") as hdf5:
        hdf5.create_group("data")
        hdf5["date"] = np.array([b"2013070101"])
    refused(file, "no dataset data$")
    with h5py.File(file, "w") as hdf5:
        hdf5["data"] = np.zeros((1, 2, ROWS, COLS))
        hdf5["date"] = np.array([2013070101])
    refused(file, "date must be a list of byte strings")
    with h5py.File(file, "w") as hdf5:
        hdf5["data"] = np.zeros((1, 2, ROWS, COLS))
        hdf5["date"] = b"2013070101"
    refused(file, "date must be a list of byte strings")
    grids(file, [], np.zeros((0, 2, ROWS, COLS)))
    refused(file, "a.h5 holds no slot")
    grids(file, [*labels("20130701", 1), *labels("21130701", 1)])
    refused(file, "more than 1830 days: correct its dates")


@pytest.mark.parametrize("kept", [100, 0.5, 0.9])
def test_a_damaged_file(tmp_path: Path, kept: float) -> None:
    grids(tmp_path / "a.h5", labels("20130701", *range(1, 49)))
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    refused(tmp_path / "a.h5", "cannot read .*a.h5 as HDF5")


@pytest.mark.parametrize(("day", "slots"), [("2008-03-09", 46), ("2008-11-02", 50), ("2008-06-04", 48)])
def test_an_export_comes_back_as_it_was(tmp_path: Path, day: str, slots: int) -> None:
    there = city("America/New_York")
    midnight = there.midnight(np.datetime64(day))
    time = midnight + HALF_HOUR * np.arange(-20, slots + 20)
    draw = np.random.default_rng(3)
    observed = draw.random(len(time)) < 0.9
    hour = (time >= midnight + 2 * HALF_HOUR) & (time < midnight + 6 * HALF_HOUR)
    observed |= hour  # of a repeated date that comes once nobody can tell which it is
    observed[[0, -1]] = True
    flow = draw.integers(0, 2**31 - 1, (len(time), 2, ROWS, COLS)) * observed[:, None, None, None]
    flows = flows_dataset(there, time, flow, np.where(observed, -1, 0), observed)
    assert export_taxibj(there, flows, tmp_path / "a.h5") == observed.sum()
    assert _read_grids(tmp_path / "a.h5", there).flows.identical(flows)


def counted(start: str, slots: int, cut: list[int] | None = None) -> xr.Dataset:
    """Flows of random counts; those of `cut` are not observed."""
    coverage = np.ones(slots)
    coverage[cut or []] = 0.5
    flow = np.random.default_rng(0).integers(0, 2**31 - 1, (slots, 2, ROWS, COLS))
    return flows_dataset(city(), utc(start) + HALF_HOUR * np.arange(slots), flow, np.full(slots, 7), coverage)


def test_an_export_holds_observed_slots_inflow_first(tmp_path: Path) -> None:
    whole = counted("2008-06-03T16:00", 6, cut=[2, 5])
    assert export_taxibj(city(), whole, tmp_path / "out.h5") == 4
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file) == {"data", "date"}
        assert file["data"].shape == (4, 2, 3, 2)
        assert file["data"].dtype.kind == "i"
        assert (file["data"][:] == whole["flow"].values[[0, 1, 3, 4]]).all()
        assert (file["data"][:, 0] == whole["flow"].sel(flow_kind="inflow").values[[0, 1, 3, 4]]).all()
        assert file["date"][:].tolist() == [b"2008060401", b"2008060402", b"2008060404", b"2008060405"]


def test_an_export_that_cannot_be_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    whole = counted("2008-06-04T00:00", 4)
    with pytest.raises(InputError, match="midnight in Asia/Kathmandu is not the start of a slot of 30 minutes"):
        export_taxibj(city("Asia/Kathmandu"), whole, out)
    assert not out.exists()
    with pytest.raises(InputError, match="no folder .*gone"):
        export_taxibj(city(), whole, tmp_path / "gone" / "out.h5")
    with pytest.raises(InputError, match="is a folder"):
        export_taxibj(city(), whole, tmp_path)


def test_without_any_observed_slot_the_dates_are_still_byte_strings_or_it_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    try:
        export_taxibj(city(), counted("2008-06-03T16:00", 2, cut=[0, 1]), out)
    except InputError:
        assert not out.exists()
        return
    with h5py.File(out) as file:
        assert file["date"].dtype.kind == "S"


def test_an_export_that_fails_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.write_text("precious")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(h5py.File, "create_dataset", fail)
    with pytest.raises(OSError, match="no space left"):
        export_taxibj(city(), counted("2008-06-03T16:00", 2), out)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert out.read_text() == "precious"


def test_an_official_file_comes_back_as_it_was(tmp_path: Path) -> None:
    dates = [*labels("20081101", *range(1, 49)), *labels("20081102", 1, 2, 3, 4, 3, 4, *range(5, 40))]
    data = grids(tmp_path / "official.h5", dates)
    there = city("America/New_York")
    export_taxibj(there, _read_grids(tmp_path / "official.h5", there).flows, tmp_path / "again.h5")
    with h5py.File(tmp_path / "again.h5") as hdf5:
        assert set(hdf5) == {"data", "date"}
        assert hdf5["date"].dtype == "S10"
        assert hdf5["date"][()].tolist() == dates
        assert hdf5["data"].dtype.kind == "i"
        assert (hdf5["data"][()] == data).all()


# Weather and holidays


def weather(file: Path, dates: list[bytes], **changed: Any) -> None:
    n = len(dates)
    arrays = {
        "date": np.array(dates, "S"),
        "Temperature": np.linspace(-24.6, 41, n),
        "WindSpeed": np.linspace(0, 48.6, n),
        "Weather": np.eye(17)[np.arange(n) % 17],
        **changed,
    }
    with h5py.File(file, "w") as hdf5:
        for key, array in arrays.items():
            hdf5[key] = array


def test_weather_is_kept_with_times_in_utc(tmp_path: Path) -> None:
    weather(tmp_path / "w.h5", labels("20130701", *range(1, 21)))
    _write_weather(tmp_path, _read_weather_file(tmp_path / "w.h5", city()), city())
    with xr.open_dataset(tmp_path / "small" / "weather.nc", engine="h5netcdf") as stored:
        found = stored.load()
    assert (found["time"].values == utc("2013-06-30T16:00") + HALF_HOUR * np.arange(20)).all()
    assert found["temperature"].values == pytest.approx(np.linspace(-24.6, 41, 20), rel=1e-6)
    assert found["wind_speed"].values == pytest.approx(np.linspace(0, 48.6, 20), rel=1e-6)
    assert found["weather"].dtype == np.int8
    assert found["weather_type"].values[found["weather"].values.argmax(1)].tolist() == [
        *_WEATHER_TYPES, "sunny", "cloudy", "overcast",
    ]  # fmt: skip
    assert (found["temperature"].attrs["units"], found["wind_speed"].attrs["units"]) == ("degree_Celsius", "mile/hour")


def test_weather_of_a_skipped_hour_is_left_out(tmp_path: Path) -> None:
    weather(tmp_path / "w.h5", labels("20080309", 4, 5, 6, 7))
    found = _read_weather_file(tmp_path / "w.h5", city("America/New_York"))
    assert found["weather"].values.argmax(1).tolist() == [0, 3]


@pytest.mark.parametrize(
    "changed",
    [
        {"Temperature": np.zeros(3)},
        {"WindSpeed": np.zeros((2, 1))},
        {"Weather": np.zeros((2, 16))},
        {"Weather": np.full((2, 17), 0.5)},
        {"Temperature": np.array([b"warm", b"cold"])},
        {"WindSpeed": np.array([b"1", b"2"])},
    ],
)
def test_weather_that_is_none(tmp_path: Path, changed: dict[str, np.ndarray]) -> None:
    weather(tmp_path / "w.h5", labels("20130701", 1, 2), **changed)
    with pytest.raises(InputError, match="w.h5: a Temperature, a WindSpeed and a one-hot Weather of 17"):
        _read_weather_file(tmp_path / "w.h5", city())


def test_holidays(tmp_path: Path) -> None:
    (tmp_path / "BJ_Holiday.txt").write_bytes(b"\xef\xbb\xbf20130920\r\n20130919\r\n\r\n20130919\n")
    days = _read_holidays_file(tmp_path / "BJ_Holiday.txt")
    assert days.astype(str).tolist() == ["2013-09-19", "2013-09-20"]
    _write_holidays(tmp_path, days, city())
    assert json.loads((tmp_path / "small" / "holidays.json").read_text()) == ["2013-09-19", "2013-09-20"]


@pytest.mark.parametrize("line", ["20131301", "2013", "Monday", "2013-09-19", "201309191", "\xff"])
def test_a_line_that_is_no_day(tmp_path: Path, line: str) -> None:
    (tmp_path / "BJ_Holiday.txt").write_text(f"20130919\n{line}\n", encoding="latin-1")
    with pytest.raises(InputError, match="BJ_Holiday.txt, line 2: '.*' is not a day YYYYMMDD"):
        _read_holidays_file(tmp_path / "BJ_Holiday.txt")


# Ready windows


def scaled(n: int, dtype: Any = np.float64, length: int = 4) -> np.ndarray:
    counts = np.random.default_rng(n).integers(0, 1293, (n, length, 2, ROWS, COLS))
    return (counts / 1292 * 2 - 1).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_windows_come_back_between_0_and_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, save: Any
) -> None:
    monkeypatch.setattr(taxibj, "_WINDOWS_AT_ONCE", 3)
    arrays = {"X_train": scaled(10, dtype), "Y_train": scaled(10, dtype), "X_test": scaled(4, dtype)}
    arrays["Y_test"] = np.asfortranarray(scaled(4, dtype))
    save(tmp_path / "dataset.npz", **arrays)
    assert _write_windows(tmp_path / "dataset.npz", city(), tmp_path) == {"train": 10, "test": 4}
    found = read_windows(tmp_path, city())
    for split in ("train", "test"):
        for key, windows in zip("XY", found[split], strict=True):
            assert windows.dtype == np.float32
            assert (windows == ((arrays[f"{key}_{split}"] + 1) / 2).astype(np.float32)).all()
            assert windows.min() >= 0 and windows.max() <= 1
    assert sorted(file.name for file in (tmp_path / "small").iterdir()) == ["windows.h5"]


@pytest.mark.slow
def test_windows_larger_than_the_memory_that_is_left_alone(tmp_path: Path) -> None:
    there = city(rows=32, cols=32)
    big = np.zeros((2500, 4, 2, 32, 32), np.float32)  # 82 MB
    np.savez_compressed(tmp_path / "dataset.npz", X_train=big, Y_train=big, X_test=big[:1], Y_test=big[:1])
    del big
    before = _anonymous_bytes()
    _write_windows(tmp_path / "dataset.npz", there, tmp_path)
    found = read_windows(tmp_path, there)
    assert found["train"][0].shape == (2500, 4, 2, 32, 32)
    assert _anonymous_bytes() - before < 40e6
    assert (found["train"][1][2499] == 0.5).all()


def _anonymous_bytes() -> int:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X_test": None}, "is not the dataset.npz of OpenSTL's TaxiBJ: it has no array X_test"),
        ({"Y_train": scaled(9)}, "Y_train is 9 x 4 x 2 x 3 x 2 float64, .* ask for 10 x 4 x 2 x 3 x 2"),
        ({"X_train": scaled(10, length=5)}, "X_train is 10 x 5 x"),
        ({"X_train": np.zeros((10, 4, 2, 2, 3))}, "ask for 10 x 4 x 2 x 3 x 2 floats"),
        ({"X_train": np.zeros((10, 4, 2, 3, 2), int)}, "int64"),
        ({"X_train": np.zeros(())}, "X_train is  float64"),
        ({"Y_test": scaled(4) * 1.1}, r"Y_test has values beyond \[-1, 1\]"),
        ({"Y_test": scaled(4) * np.nan}, r"Y_test has values beyond \[-1, 1\]"),
        ({"X_train": np.array([{"a": "pickle"}], object)}, "cannot read X_train"),
        ({"X_train": np.zeros((0, 4, 2, 3, 2))}, "X_train is 0 x 4"),
    ],
)
def test_windows_that_are_none(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    right = {"X_train": scaled(10), "Y_train": scaled(10), "X_test": scaled(4), "Y_test": scaled(4)}
    np.savez(tmp_path / "right.npz", **right)
    _write_windows(tmp_path / "right.npz", city(), tmp_path)
    kept = (tmp_path / "small" / "windows.h5").read_bytes()
    wrong = {key: array for key, array in {**right, **changed}.items() if array is not None}
    np.savez(tmp_path / "dataset.npz", **wrong)
    with pytest.raises(InputError, match=message):
        _write_windows(tmp_path / "dataset.npz", city(), tmp_path)
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "small").iterdir()] == [("windows.h5", kept)]


def test_a_damaged_npz_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'small' has no ready windows: run trafficcast import-taxibj"):
        read_windows(tmp_path, city())
    (tmp_path / "dataset.npz").write_text("no archive")
    with pytest.raises(InputError, match="cannot read X_train from .*dataset.npz"):
        _write_windows(tmp_path / "dataset.npz", city(), tmp_path)
    with zipfile.ZipFile(tmp_path / "dataset.npz", "w") as archive:
        archive.writestr("X_train.npy", "no array")
    with pytest.raises(InputError, match="cannot read X_train from .*dataset.npz"):
        _write_windows(tmp_path / "dataset.npz", city(), tmp_path)
