"""How fast playrelay is, against the least work that could do the same: `make bench`, or `python -m benchmarks.table`."""
