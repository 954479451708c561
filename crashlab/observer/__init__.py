"""What do an application and its server say to each other, and at which moment of it does the server die?

A proxy for PostgreSQL's protocol, in a process of its own:

    client <-> proxy.py (sockets) <-> machine.py (bytes in, bytes and events out) + answers.py <-> server
                    |
              conversation file -> conversation.py + transactions.py: who was told what, which moments there are
"""

from crashlab.observer.account import Conversation
from crashlab.observer.conversation import in_words, moments, read_conversation, step_of
from crashlab.observer.moment import Moment
from crashlab.observer.observer import Address, Observer, Reached, Upstream

__all__ = [
    "Address",
    "Conversation",
    "Moment",
    "Observer",
    "Reached",
    "Upstream",
    "in_words",
    "moments",
    "read_conversation",
    "step_of",
]
