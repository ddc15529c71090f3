"""How fast playrelay is, against the least work that could do the same: `make bench`, or `python -m benchmarks.table`."""

import sys
from pathlib import Path

# What tests/stream/streams.py imports, as pytest has it in its path; last, so that no other import looks there first.
sys.path.append(str(Path(__file__).parents[1] / "tests" / "command"))
