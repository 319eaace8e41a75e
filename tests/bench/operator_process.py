"""The operator's process as it is, but that pods may be on loopback, at the port that POD_PORT names: hostile pods need no cluster then."""

import os
from functools import partial

from alise_operator import __main__ as operator
from alise_operator import pods
from alise_operator.poller import Poller

pods.address_refusal = lambda _: None
operator.Poller = partial(Poller, int(os.environ["POD_PORT"]))  # type: ignore[misc, assignment]
operator.main()
