"""The sentence encoder: the meaning of a prompt as a vector of length 1.

onnxruntime has one thread, because more would compete with the engine.

Texts are encoded one by one. With one thread a batch of four costs 10% more per text (padding, and nothing to share), and a vector would
depend on the other texts of the batch, because activations are quantized together. A long prompt is represented by its beginning and its
end, where instructions are. MAX_TOKENS bounds the time of one text.

Reads the folder that ALISE_ENCODER names. `encode_queue.py` calls it for admissions, and `training/prior_fit.py` for the prior.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import EncoderError
from ..features.row import EMBEDDING
from .wordpiece import Vocabulary

MAX_TOKENS: Final = 96
_HEAD_TOKENS: Final = 60
# Characters of each end that are tokenized: more than MAX_TOKENS need, and never the whole of a huge prompt.
_EDGE_CHARS: Final = 1200
# Version of the way from a text to token ids. Increase it when the same text gets other ids: priors of another version are not used.
TOKENS_VERSION: Final = 1
MODEL_FILE: Final = "encoder.onnx"
VOCABULARY_FILE: Final = "vocab.txt"

Rows = NDArray[np.float32]


class Encoder(Protocol):
    """Turns texts into vectors. Called from one thread at a time."""

    def encode(self, texts: Sequence[str]) -> Rows:
        """Returns vectors [N, EMBEDDING] of length 1, or 0 for a text without tokens."""


class OnnxEncoder:
    """A BERT encoder as `export_encoder.py` writes it."""

    def __init__(self, folder: Path) -> None:
        """Loads the encoder in a folder. Raises EncoderError if there is no usable one."""
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            # Otherwise the memory of the largest batch would be kept.
            options.enable_cpu_mem_arena = False
            options.log_severity_level = 3
            self._vocabulary = Vocabulary(folder / VOCABULARY_FILE)
            # The fused operator takes five times as long on a CPU as the operators it replaces: a quarter of the whole time.
            self._session = onnxruntime.InferenceSession(
                str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
            )
            inputs = [item.name for item in self._session.get_inputs()]
            if inputs != ["input_ids"]:
                raise ValueError(f"it takes {inputs}, not input_ids alone; export it anew with export_encoder.py")
            result = self.encode(["hello"])
        except Exception as error:  # onnxruntime's errors have no common base but this
            raise EncoderError(f"the encoder in {folder} cannot be used: {error}") from error
        if result.shape != (1, EMBEDDING):
            raise EncoderError(f"the encoder in {folder} makes vectors of {result.shape[1:]} numbers; {EMBEDDING} are expected")

    def encode(self, texts: Sequence[str]) -> Rows:
        result = np.zeros((len(texts), EMBEDDING), np.float32)
        for row, text in enumerate(texts):
            ids = self._ids(text)
            if len(ids) > 2:
                result[row] = self._session.run(["embedding"], {"input_ids": np.array([ids], np.int32)})[0][0]
        return result

    def _ids(self, text: str) -> list[int]:
        ends = text if len(text) <= 2 * _EDGE_CHARS else f"{text[:_EDGE_CHARS]} {text[-_EDGE_CHARS:]}"
        ids = self._vocabulary.ids(ends)
        room = MAX_TOKENS - 2
        if len(ids) > room:
            ids = ids[:_HEAD_TOKENS] + ids[_HEAD_TOKENS - room :]
        return [self._vocabulary.cls, *ids, self._vocabulary.sep]
