"""Names that networks and inputs may have, since topics and URLs are made of them. Pure.

Of the characters that Kafka takes, but not of dots alone: every client of HTTP takes `.` and `..`
out of a path, so such a network could be deployed and never be asked. What begins like topics of
this system is refused too: `snn.out.snn.in.x` is legal for Kafka, and a trap for whoever reads a
list of topics or writes an ACL.
"""

import re
from typing import Final

__all__ = ["LEGAL_NAMES", "TOPIC_NAME", "is_same_topic"]

TOPIC_NAME: Final = re.compile(r"(?!\.+\Z)(?!snn\.)[A-Za-z0-9._-]{1,100}")
LEGAL_NAMES: Final = (
    "1 to 100 of the characters A-Z a-z 0-9 . _ - , not dots alone, and not beginning with snn."
)


def is_same_topic(one: str, other: str) -> bool:
    """Whether two names cannot both be topics: Kafka's metrics take `.` and `_` for one."""
    return one.replace(".", "_") == other.replace(".", "_")
