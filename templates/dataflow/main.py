"""What Dataflow's launcher runs: the job that the image was built for."""

import importlib
import logging
import os
import sys

if __name__ == "__main__":
    logging.getLogger("apache_beam").setLevel(logging.INFO)
    sys.exit(importlib.import_module(f"pipelines.{os.environ['PLAYRELAY_JOB']}").main())
