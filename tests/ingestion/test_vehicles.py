"""The vehicle table: lasting codes for names, first times and last points, in whatever order counts come."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from trafficcast.config.city import City
from trafficcast.ingestion.counting import Count, _count_points
from trafficcast.ingestion.vehicles import _VehicleTable
from trafficcast.records.records import Points, ZoneTrips

CITY = City(west=10.0, east=10.5, south=45.0, north=45.5, rows=4, cols=4, timezone="UTC", name="small")
Row = tuple[int, int, float, float, int]  # vehicle, time, longitude, latitude, occupied


def points(*rows: Row) -> Points:
    columns = zip(*rows, strict=True)
    return Points(*(np.array(c, d) for c, d in zip(columns, Points.DTYPES.values(), strict=True)))


def counted(*rows: Row) -> Count:
    return _count_points(CITY, points(*rows))


def rows_of(records: Points) -> list[Row]:
    return list(zip(*(column.tolist() for column in records.arrays().values()), strict=True))


def test_a_name_keeps_its_code_and_new_names_get_the_next() -> None:
    vehicles = _VehicleTable()
    assert vehicles.codes(["b", "a", "b"]).tolist() == [0, 1, 0]
    assert vehicles.codes(["c", "a"]).tolist() == [2, 1]
    assert vehicles.names == ["b", "a", "c"]
    assert vehicles.codes([]).tolist() == []


def test_names_that_were_stored_keep_their_codes() -> None:
    vehicles = _VehicleTable(["x", "y"])
    assert vehicles.codes(["y", "z", "x"]).tolist() == [1, 2, 0]


def test_points_get_the_tables_codes_and_trips_stay() -> None:
    vehicles = _VehicleTable(["x", "y"])
    given = points((0, 5, 10.1, 45.1, 0), (1, 6, 10.2, 45.2, 1))
    recoded = vehicles.recode(given, ["new", "x"])
    assert rows_of(recoded) == [(2, 5, 10.1, 45.1, 0), (0, 6, 10.2, 45.2, 1)]
    assert recoded.vehicle.dtype == np.int32
    assert given.vehicle.tolist() == [0, 1]  # what was given is left as it was
    trips = ZoneTrips(*(np.array([value]) for value in (1, 4, 2, 7, 0)))
    assert vehicles.recode(trips, []) is trips


def test_first_and_last_do_not_depend_on_the_order_of_counts() -> None:
    counts = [
        counted((0, 50, 10.1, 45.1, 0), (0, 60, 10.2, 45.2, 1), (2, 55, 10.3, 45.3, -1)),
        counted((0, 10, 10.4, 45.4, 0)),
        counted((0, 90, 10.0, 45.0, 1), (2, 20, 10.1, 45.4, 1)),
    ]
    for order in permutations(counts):
        vehicles = _VehicleTable()
        vehicles.codes(["a", "never", "c"])
        for count in order:
            vehicles.update(count)
        assert vehicles.first_time[[0, 2]].tolist() == [10, 20]
        assert rows_of(vehicles.last_points(np.array([0, 2], np.int32))) == [
            (0, 90, 10.0, 45.0, 1),
            (2, 55, 10.3, 45.3, -1),
        ]
        assert vehicles.number_with_points() == 2


def test_a_last_point_that_a_smaller_repeat_replaced_is_replaced_here_too() -> None:
    vehicles = _VehicleTable(["a"])
    vehicles.update(counted((0, 50, 10.2, 45.2, 1)))
    vehicles.update(counted((0, 50, 10.1, 45.1, 0)))
    assert rows_of(vehicles.last_points(np.array([0], np.int32))) == [(0, 50, 10.1, 45.1, 0)]


def test_a_name_alone_is_no_vehicle_with_points() -> None:
    vehicles = _VehicleTable()
    vehicles.codes(["a", "b"])
    assert vehicles.number_with_points() == 0
    vehicles.extend()
    assert (
        len(vehicles.first_time)
        == len(vehicles.last_time)
        == len(vehicles.last_position)
        == len(vehicles.last_occupied)
        == 2
    )
    assert vehicles.number_with_points() == 0
    assert (vehicles.first_time > 2**62).all() and (vehicles.last_time < -(2**62)).all()


def test_extending_keeps_the_points() -> None:
    vehicles = _VehicleTable(["a"])
    vehicles.update(counted((0, 50, 10.2, 45.2, 1)))
    vehicles.codes(["b"])
    vehicles.update(counted((1, 40, 10.1, 45.1, 0)))
    codes = np.array([0, 1], np.int32)
    assert rows_of(vehicles.last_points(codes)) == [(0, 50, 10.2, 45.2, 1), (1, 40, 10.1, 45.1, 0)]
    assert vehicles.first_time.tolist() == [50, 40]
