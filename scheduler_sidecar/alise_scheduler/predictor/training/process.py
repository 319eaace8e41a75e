"""The training process: `python -m alise_scheduler.predictor.training.process VERSION`.

It reads a history from standard input and writes a head to standard output, both as npz. If it fails, the exit status is not 0 and standard
error has the reason. `loop.py` starts it, so that neither the work nor the memory of a training slows admissions down.
"""

import sys

from .background import step_back
from .fit import train
from .samples import read_history


def main() -> None:
    """Trains a head of the version that the argument names."""
    step_back()
    history = read_history(sys.stdin.buffer.read())
    version = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    sys.stdout.buffer.write(train(history, version).to_bytes())


if __name__ == "__main__":
    main()
