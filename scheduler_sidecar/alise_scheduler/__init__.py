"""The scheduler sidecar: predicts the length of answers and ranks the requests of one engine. See scheduler_sidecar/README.md."""

import os

# numpy's BLAS reads it when it is loaded, so it is set before any module here can load numpy. With one thread per core, its threads spin
# while the engine uses every core, and an admission takes four times the CPU. Set the variable to choose another number.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
