"""The response of a problem: JSON for programs, a small page for people who open an address in a browser."""

from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response

from restora.serving.problems import MEDIA_TYPE, SEE_DOCS, Problem

PAGE = Path(str(files("restora.serving"))) / "page"
HEADINGS = {
    "no-route": "There is no such page",
    "unknown": "This photo is no longer here",
    "gone": "This photo is no longer here",
    "not-done": "This photo is not finished yet",
    "token": "This address needs an access token",
}
"""Headings of the page by the problem's code; other codes have the one below."""
_HEADING = "This did not work"


def problem_response(problem: Problem, asked: Headers) -> Response:
    """The HTTP response of a problem; `asked` are the headers of the request.

    Only browsers accept `text/html` by name, and only for an address that a person opens.
    """
    if "text/html" not in asked.get("accept", "").lower():
        answer: Response = JSONResponse(
            problem.body(), problem.status, headers=problem.headers(), media_type=MEDIA_TYPE
        )
    else:
        answer = HTMLResponse(_page(problem), problem.status, headers=problem.headers())
    answer.headers["Vary"] = "Accept"
    return answer


def _page(problem: Problem) -> str:
    reason = problem.detail.removesuffix(SEE_DOCS)
    words = {"heading": HEADINGS.get(problem.code, _HEADING), "text": reason[:1].upper() + reason[1:]}
    template = Template((PAGE / "problem.html").read_text(encoding="utf-8"))
    return template.substitute({name: escape(text) for name, text in words.items()})
