"""What can go wrong in the cluster tool. The files of `tests/cluster` raise them, and `cli.py` prints them.

ClusterError            shown to the user as one message, without a traceback
├── UnsupportedMachine  this machine cannot run the cluster; the message says what to use instead
├── CommandFailed       a program we called ended badly or ran past its deadline
└── NotReady            something we started did not answer in time
"""


class ClusterError(Exception):
    """Something the user can act on; the message says what and how."""


class UnsupportedMachine(ClusterError):
    """The machine lacks something that the tool cannot install by itself."""


class CommandFailed(ClusterError):
    """A program ended with a non-zero status or ran past its deadline."""


class NotReady(ClusterError):
    """A process was started and did not become ready before its deadline."""
