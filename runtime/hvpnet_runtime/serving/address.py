"""Where a service listens."""

import socket

from hvpnet_runtime.serving.errors import SettingsError


def listen(host: str, port: int) -> socket.socket:
    """A socket at the address.

    Raises:
        SettingsError: it cannot be listened at.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SettingsError(f"cannot listen at {host}, port {port}: {error.strerror}") from error


def url_of(host: str, port: int) -> str:
    """The address of a service as clients write it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
