"""The pages' script: streamlit run dashboard/app.py -- --config FILE --city NAME."""

import sys
from pathlib import Path

# Streamlit puts this script's folder on the path, not the one that holds the packages.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from dashboard.shell import main

main(sys.argv[1:])
