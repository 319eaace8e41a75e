"""Predicts how long answers will be and ranks requests, beside one engine. See scheduler_sidecar/README.md."""

import os

# Read by numpy's BLAS when it is loaded, so before any module here can load it. With one thread per core its threads spin for one another
# beside an engine that uses every core: four times the work for an admission. Who wants more sets it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
