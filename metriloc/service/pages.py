"""What browsers look at: the page at ``/``, and the API in words at ``/docs``. Nothing of it comes from elsewhere."""

from __future__ import annotations

from fastapi import FastAPI, Response

from metriloc.page import document, escaped

_DOCS_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_pages(app: FastAPI) -> None:
    """The routes of pages."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page = document("metriloc: the API", api_in_words(app.openapi()))
        return Response(page, headers={"Content-Security-Policy": _DOCS_POLICY}, media_type="text/html")


def api_in_words(schema: dict[str, object]) -> str:
    """An OpenAPI description as HTML: every route, what it takes, and what it returns."""
    parts = [
        "<h1>metriloc: the API</h1>",
        '<p>For programs: <a href="/openapi.json">openapi.json</a> (OpenAPI). Errors are '
        "<code>application/problem+json</code> (RFC 9457).</p>",
    ]
    paths: dict[str, dict[str, dict]] = schema["paths"]  # type: ignore[assignment]
    bodies: dict[str, dict] = schema["components"]["schemas"]  # type: ignore[index]
    for path, methods in paths.items():
        for method, route in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escaped(path)}</code></h2>")
            parts.append(f"<p>{escaped(route.get('description', ''))}</p>")
            fields = [(p["name"], p["schema"], p.get("required", False)) for p in route.get("parameters", ())]
            for content in route.get("requestBody", {}).get("content", {}).values():
                body = bodies[content["schema"]["$ref"].rsplit("/", 1)[-1]]
                needed = body.get("required", ())
                fields += [(name, field, name in needed) for name, field in body["properties"].items()]
            if fields:
                rows = "".join(
                    f"<tr><td><code>{escaped(name)}</code></td><td>{'needed' if needed else ''}</td>"
                    f"<td>{escaped(field.get('description', ''))}</td></tr>"
                    for name, field, needed in fields
                )
                parts.append(f'<div class="scroll"><table>{rows}</table></div>')
    return "\n".join(parts)
