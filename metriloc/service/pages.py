"""What browsers look at: the page at ``/``, and the API in words at ``/docs``. Nothing of it comes from elsewhere."""

from __future__ import annotations

from importlib import resources
from typing import Any

from fastapi import FastAPI, Response

from metriloc.io.pages import script_source
from metriloc.page import document, escaped
from metriloc.service.problems import Problem
from metriloc.viz.markup import report_script

_FILES = {
    "style.css": ("metriloc.page", "text/css"),
    "page.css": ("metriloc.service.page", "text/css"),
    "page.js": ("metriloc.service.page", "text/javascript"),
}
_DOCS_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_pages(app: FastAPI) -> None:
    """The routes of pages."""
    # reports in its frame keep this policy: their styles are inline, their only script is known
    policy = (
        f"default-src 'none'; script-src 'self' {script_source(report_script())}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        text = _text("metriloc.service.page", "page.html")
        return Response(text, headers={"Content-Security-Policy": policy}, media_type="text/html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in _FILES:
            raise Problem(404, "there is no such file")
        package, kind = _FILES[name]
        return Response(_text(package, name), media_type=kind)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        text = document("metriloc: the API", api_in_words(app.openapi()))
        return Response(text, headers={"Content-Security-Policy": _DOCS_POLICY}, media_type="text/html")


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def api_in_words(schema: dict[str, Any]) -> str:
    """An OpenAPI description as HTML: every route, and what it takes."""
    parts = [
        "<h1>metriloc: the API</h1>",
        '<p>For programs: <a href="/openapi.json">openapi.json</a> (OpenAPI). Errors are '
        "<code>application/problem+json</code> (RFC 9457).</p>",
    ]
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escaped(path)}</code></h2>")
            parts.append(f"<p>{escaped(' '.join(route.get('description', '').split()))}</p>")
            rows = "".join(
                f"<tr><td><code>{escaped(name)}</code></td><td>{'needed' if needed else ''}</td>"
                f"<td>{escaped(field.get('description', ''))}</td></tr>"
                for name, field, needed in _fields(route, schema["components"]["schemas"])
            )
            parts.append(f'<div class="scroll"><table>{rows}</table></div>' if rows else "")
    return "\n".join(parts)


def _fields(route: dict[str, Any], bodies: dict[str, Any]) -> list[tuple[str, dict[str, Any], bool]]:
    """(name, description, whether it is needed) of what a route takes."""
    found = [(part["name"], part["schema"], part.get("required", False)) for part in route.get("parameters", ())]
    for content in route.get("requestBody", {}).get("content", {}).values():
        body = bodies[content["schema"]["$ref"].rsplit("/", 1)[-1]]
        found += [(name, field, name in body.get("required", ())) for name, field in body["properties"].items()]
    return found
