"""The operator's process as it is, but that pods may be on loopback, at the port that POD_PORT names: hostile pods need no cluster then.

`operator_hostile.py` starts it.
"""

import os
from functools import partial
from typing import Any

from alise_operator import __main__ as operator
from alise_operator import pods
from alise_operator.poller import Poller


def refuse_none(pod: dict[str, Any]) -> str | None:
    return None


pods.address_refusal = refuse_none
setattr(operator, "Poller", partial(Poller, int(os.environ["POD_PORT"])))  # noqa: B010
operator.main()
