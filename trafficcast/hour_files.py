"""An hour's records as a Parquet file: the fields of their kind, the vehicle by its name.

Sorted and each once (see sorting.py), so that reading one needs no more work before it is counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trafficcast.errors import InputError
from trafficcast.records import Records


def write_hour(file: Path, records: Records, names: list[str]) -> None:
    """Write records, whose vehicles index `names`, to a new file."""
    columns: dict[str, Any] = {}
    for name, array in records.arrays().items():
        if name == "vehicle":
            present, codes = np.unique(array, return_inverse=True)
            columns[name] = pa.DictionaryArray.from_arrays(codes.astype(np.int32), [names[code] for code in present])
        elif name.endswith("time"):
            columns[name] = pa.array(array, pa.timestamp("us", "UTC"))
        else:
            columns[name] = array
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file, compression="zstd", use_dictionary=["vehicle"])


def read_hour(file: Path, kind: type[Records]) -> tuple[list[str], Records]:
    """The vehicles' names and the records, whose vehicles index them. Raises InputError where the file is damaged."""
    names: list[str] = []
    arrays = {}
    try:
        table = pq.read_table(file, read_dictionary=["vehicle"], partitioning=None).combine_chunks()
        for name, dtype in kind.DTYPES.items():
            column = table[name].combine_chunks()
            if name == "vehicle":
                names, column = column.dictionary.to_pylist(), column.indices
            elif name.endswith("time"):
                column = column.cast(pa.int64())
            arrays[name] = column.to_numpy().astype(dtype, copy=False)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"cannot read {file}: {error}; move the records' folder away and ingest its sources again"
        ) from None
    return names, kind(**arrays)
