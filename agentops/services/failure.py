"""The one error of this package: it says what is wrong and what to do next."""


class ServicesFailure(Exception):
    """PostgreSQL or Redis could not be brought along."""
