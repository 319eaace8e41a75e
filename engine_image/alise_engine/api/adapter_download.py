"""Downloads one LoRA adapter from Hugging Face: `python -m alise_engine.api.adapter_download REPOSITORY REVISION`.

Prints the folder with its files. `adapter_files.py` runs it; HF_HOME, HF_TOKEN and the hub's other variables hold as for the model.
"""

import sys
from collections.abc import Sequence
from typing import Final

# Weights in other formats may carry code, and an adapter's repository often holds the checkpoints of its training.
FILES: Final = ("adapter_config.json", "adapter_model.safetensors")


def main(arguments: Sequence[str]) -> int:
    repository, revision = arguments
    from huggingface_hub import snapshot_download

    try:
        print(snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES)))
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
