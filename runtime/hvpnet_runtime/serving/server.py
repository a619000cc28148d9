"""`hvpnet serve`: the service in this process, from its socket to its end."""

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeAlias

import uvicorn

from hvpnet_runtime.serving.address import listen, url_of
from hvpnet_runtime.serving.admission import Admission
from hvpnet_runtime.serving.api import create_api
from hvpnet_runtime.serving.connections import limited
from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.in_process import InProcess
from hvpnet_runtime.serving.middleware import LogRequests
from hvpnet_runtime.serving.settings import Settings
from hvpnet_runtime.serving.stopping import finish

Ends: TypeAlias = "SimpleQueue[int | Exception]"
"""Where the first reason to end appears: a signal, or what a backend failed of for good."""

_LOOK_SECONDS = 0.02
_LAST_ANSWERS_SECONDS = 5  # for what is answered to reach the client
_REFUSING_SECONDS = 0.5
"""After the last answer: who has it and sends on at once is told why not, instead of being hung up on."""

_KEEP_ALIVE_SECONDS = 15  # longer than clients keep connections, httpx 5: they should not close under a request

_log = logging.getLogger(__name__)


@contextmanager
def local_service(settings: Settings, host: str, port: int, ends: Ends, *, access_log: bool = False) -> Iterator[str]:
    """Start the service in a thread of this process, and stop it at the end, once the requests in hand are answered.

    Args:
        settings: of the service; those of replicas are Ray's.
        host: address to listen at; nothing else is listened at.
        port: and the port.
        ends: is told if a backend fails for good.
        access_log: log a line for every request.

    Yields:
        The service's address, once it is ready.

    Raises:
        BundleError: a bundle is missing, damaged or edited.
        BackendError: no backend runs here, or the one named does not.
        SettingsError: there is no token where one should be, or the address cannot be listened at.
        StuckError: at the end, a backend does not come back from a run; its thread keeps the interpreter from ending.
    """
    token = settings.token.read() if settings.token else None
    admission, patience = Admission(settings.limits), _LAST_ANSWERS_SECONDS
    with listen(host, port) as listener:
        extractor = InProcess(settings, ends.put)
        try:
            api = create_api(settings, extractor, extractor.own_metrics, admission=admission, token=token)
            config = uvicorn.Config(
                LogRequests(api) if access_log else api,
                log_config=None,
                log_level=None if _log.isEnabledFor(logging.DEBUG) else "error",  # any client can cause warnings
                access_log=False,
                server_header=False,
                http=limited(settings.connections, settings.limits.retry_after_seconds),
                ws="none",
                lifespan="off",
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_LAST_ANSWERS_SECONDS,
            )
            server = uvicorn.Server(config)
            serving = threading.Thread(target=_run, args=(server, listener, ends), name="hvpnet-http", daemon=True)
            serving.start()
            while not server.started:
                if not serving.is_alive():
                    raise UnavailableError("the HTTP server does not start; --debug shows its log")
                time.sleep(_LOOK_SECONDS)
            try:
                yield url_of(host, port)
                finish(admission.close, settings.stop_seconds, _LOOK_SECONDS)
                extractor.refuse()  # while it can still be told
                time.sleep(_REFUSING_SECONDS)
            except KeyboardInterrupt:
                patience = 0
                raise
            finally:
                server.should_exit, server.force_exit = True, not patience
                serving.join(2 * patience)
        finally:
            extractor.close(patience)


def _run(server: uvicorn.Server, listener: socket.socket, ends: Ends) -> None:
    """Serve until told to stop; an end for another reason is one for the command."""
    try:
        server.run([listener])
    except Exception as error:
        ends.put(error)
    if not server.should_exit:
        ends.put(UnavailableError("the HTTP server ended"))


def end_at_signals(ends: Ends) -> None:
    """Put the first SIGINT or SIGTERM that this process gets from now on there; a second one interrupts it.

    A queue, since that may be written to by a handler at whatever moment.
    """
    numbers = signal.SIGINT, signal.SIGTERM

    def note(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.default_int_handler)
        ends.put(number)

    for number in numbers:
        signal.signal(number, note)
