"""Long runs: see __main__."""

import sys
from pathlib import Path

# What pytest has in its path.
sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("command", "pubsub", "stream")]
