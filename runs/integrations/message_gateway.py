"""Says who sent a message: in the demo a stable hash of the text, in a bank the sign-in of its app."""

import hashlib

from runs.integrations.bank_world import CUSTOMERS, FIRST_CUSTOMER


def sender(message: str) -> str:
    """The number of the customer who sent the message; the same text always comes from the same customer.

    BANKING77 has messages but no senders, so the demo gives each message one. A real desk gets the number from the
    channel the message came by, sends it along as `customer`, and never calls this.
    """
    number = int.from_bytes(hashlib.sha256(message.encode()).digest()[:8])
    return f"C-{FIRST_CUSTOMER + number % CUSTOMERS}"
