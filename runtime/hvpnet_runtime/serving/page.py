"""The page at `/` for people, and what it has to know of the service."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from hvpnet_runtime.bundle import Task, read_manifest
from hvpnet_runtime.errors import InputError, brief
from hvpnet_runtime.serving.errors import UnknownBundleError
from hvpnet_runtime.serving.settings import ServiceLimits, Settings

PAGE = Path(__file__).with_name("page.html")


class ServedBundle(BaseModel):
    """A bundle that requests can name."""

    name: str
    task: Task = Field(description="`ner`: entities; `re`: the relation of a marked pair")


class RequestLimits(BaseModel):
    """What a request may ask for."""

    tweets: int
    body_bytes: int
    text_characters: int = Field(description="of one tweet")
    picture_pixels: int = Field(description="of one picture")


class Service(BaseModel):
    """What is served."""

    bundles: list[ServedBundle] = Field(description="the first is asked where a request names none")
    limits: RequestLimits

    def bundle(self, name: str | None, task: Task | None = None) -> ServedBundle:
        """The bundle of this name, or the first, that is for the task.

        Raises:
            UnknownBundleError: there is none.
            InputError: it is for the other task.
        """
        if name is None:
            fitting = [each for each in self.bundles if task in (None, each.task)]
            if not fitting:
                raise UnknownBundleError(f"no bundle for the task {task} is served; serve one beside the others")
            return fitting[0]
        found = next((each for each in self.bundles if each.name == name), None)
        if found is None:
            known = ", ".join(each.name for each in self.bundles)
            raise UnknownBundleError(f"no bundle {brief(name)} is served, only {known}")
        if task not in (None, found.task):
            raise InputError(f"the bundle {brief(name)} is for the task {found.task}: name one for {task}")
        return found


def describe(settings: Settings) -> Service:
    """What the service is to be."""
    bundles = [ServedBundle(name=name, task=read_manifest(path).task) for name, path in settings.bundles.items()]
    return Service(bundles=bundles, limits=_limits(settings.limits))


def add_page(api: FastAPI, served: Service) -> None:
    """Add `/`, and `/v1/service`, which it and clients read first."""
    html = PAGE.read_text("utf-8")
    headers = page_headers(html)

    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(html, headers=headers)

    @api.get("/v1/service")
    async def service() -> Service:
        """Which bundles are served, and what fits into a request."""
        return served


def _limits(limits: ServiceLimits) -> RequestLimits:
    return RequestLimits(**limits.model_dump(include=set(RequestLimits.model_fields)))


def page_headers(html: str) -> dict[str, str]:
    """Headers that let the page run its own script, ask its own service and show the pictures it was given, no more."""
    policy = {
        "default-src": "'none'",
        "script-src": _digests("script", html),
        "style-src": _digests("style", html),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _digests(element: str, html: str) -> str:
    """The sources of all elements of a kind that stand in the page."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" for content in contents)
