"""What a fuzz target raises when something is not as it should be. All targets, such as `requests.py` and `plans.py`, call it."""


class Finding(AssertionError):
    """The code under test did what it must not do; the message says what."""


def expect(holds: object, otherwise: str) -> None:
    """Raises Finding with this message unless `holds` is true."""
    if not holds:
        raise Finding(otherwise)
