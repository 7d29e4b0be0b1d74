"""The number format of tables."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st


def decimals(table: pd.DataFrame, digits: int) -> dict[str, Any]:
    """Make the configuration of a table's columns of floating-point numbers.

    Parameters
    ----------
    table
        The table.
    digits
        Decimals of the numbers.

    Returns
    -------
    dict[str, Any]
        Column configurations by column name, for `st.dataframe`.
    """
    names = [name for name in table.columns if pd.api.types.is_float_dtype(table[name])]
    return {str(name): st.column_config.NumberColumn(format=f"%.{digits}f") for name in names}
