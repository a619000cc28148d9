"""Ask a service over HTTP what `Pipeline` would answer here.

from hvpnet import Client, Tweet

with Client("http://127.0.0.1:8000") as client:
    client.extract([Tweet(text="Jordan was great today", image="a.jpg")])
"""

from importlib.util import find_spec

from hvpnet_runtime.errors import MissingExtraError

if find_spec("httpx2") is None:
    raise MissingExtraError("httpx2", "client", "the client of a service")

from hvpnet_runtime.client.asynchronous import AsyncClient
from hvpnet_runtime.client.synchronous import Client

__all__ = ["AsyncClient", "Client"]
