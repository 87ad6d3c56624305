"""Mail by SMTP that ends in time: connecting has a timeout of its own, and what is open ends with the attempt."""

import smtplib
import socket  # noqa: TID251 - what smtplib connects by

from django.core.mail.backends.smtp import EmailBackend  # noqa: TID251 - the adapter of mail

from runs.integrations import deadline
from runs.reliability import guard


class _Client(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """The place at which smtplib lets its own class for TLS step in, too."""
        made: socket.socket = super()._get_socket(host, port, guard.terms().connect_timeout_seconds)  # type: ignore[misc]
        made.settimeout(timeout)
        deadline.watch(made.fileno())
        return made


class _ClientOverTLS(smtplib.SMTP_SSL, _Client):
    pass


class Backend(EmailBackend):
    """Within a guarded call."""

    @property
    def connection_class(self) -> type[smtplib.SMTP]:
        return _ClientOverTLS if self.use_ssl else _Client
