"""How tables show numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st


def decimals(table: pd.DataFrame, digits: int) -> dict[str, Any]:
    """A configuration of columns: numbers with a fraction have so many decimals."""
    names = [name for name in table.columns if pd.api.types.is_float_dtype(table[name])]
    return {str(name): st.column_config.NumberColumn(format=f"%.{digits}f") for name in names}
