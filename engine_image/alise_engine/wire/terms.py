"""The words that both processes use for phases, endings and codecs. Imports nothing, so that `kv` can be used without vLLM's packages.

Files of `api`, `enginecore` and `kv` read them.
"""

from typing import Final

PHASE_WAITING: Final = "waiting"
PHASE_RUNNING: Final = "running"
PHASE_OFFLOADED: Final = "offloaded"
PHASE_PREEMPTED: Final = "preempted"
PHASE_RESTORING: Final = "restoring"
PHASES: Final = (PHASE_WAITING, PHASE_RUNNING, PHASE_OFFLOADED, PHASE_PREEMPTED, PHASE_RESTORING)

# What a trace notes beside the phases.
MARK_FIRST_TOKEN: Final = "first_token"
MARK_ENDED: Final = "ended"

FINISH_STOP: Final = "stop"
FINISH_LENGTH: Final = "length"
FINISH_ABORT: Final = "abort"
FINISH_ERROR: Final = "error"

CODEC_RAW: Final = "raw"
CODEC_INT8: Final = "int8"
CODEC_AUTO: Final = "auto"
