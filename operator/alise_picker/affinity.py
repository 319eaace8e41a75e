"""Remember which replica answered a conversation's last turn, for as many conversations as fit; mutable.

Names are digests of all messages (`alise_contract/conversation.py`), so a client that does not know a conversation cannot ask for its
replica. `picker.py` keeps one.
"""

from collections import OrderedDict
from typing import Final

MAX_CONVERSATIONS: Final = 20_000


class Homes:
    """The newest conversations and their replicas."""

    def __init__(self, most: int = MAX_CONVERSATIONS) -> None:
        self._most = most
        self._homes: OrderedDict[str, str] = OrderedDict()

    def home(self, conversation: str) -> str:
        """Returns the replica of a conversation by its name; empty if it is unknown or has none."""
        return self._homes.get(conversation, "") if conversation else ""

    def remember(self, conversation: str, address: str) -> None:
        """Notes the replica of a conversation, by the name that its next turn will give it."""
        if not conversation:
            return
        self._homes[conversation] = address
        self._homes.move_to_end(conversation)
        if len(self._homes) > self._most:
            self._homes.popitem(last=False)

    def __len__(self) -> int:
        return len(self._homes)
