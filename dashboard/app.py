"""The pages' script: streamlit run dashboard/app.py -- --config FILE --city NAME."""

import sys
from pathlib import Path

import streamlit as st

# However the pages were started: an error's traceback goes to the log, and never to a browser.
st.set_option("client.showErrorDetails", "none")

# Streamlit puts this script's folder on the path, not the one that holds the packages.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from dashboard.shell import main  # noqa: E402  # an error in it must not show its traceback either

main(sys.argv[1:])
