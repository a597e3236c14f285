"""Refuses query parameters that a route does not know, which would otherwise have no effect."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request

from restora.serving.limits import Limits
from restora.serving.problems import Problem
from restora.serving.uploads import FIELDS, Body


def query_check(limits: Limits) -> Callable[[Request], Awaitable[None]]:
    """A dependency of routes: it raises Problem for an unknown or repeated query parameter."""

    async def check(request: Request) -> None:
        route: Any = request.scope["route"]
        known = [field.alias for field in route.dependant.query_params]
        names = [name for name, _ in request.query_params.multi_items()]
        wrong = [name for name in names if name not in known or names.count(name) > 1]
        if wrong:
            await Body(request, limits).drain()
            has_form = request.method == "POST"
            raise Problem(422, "bad-option", _detail(wrong[0], known, has_form=has_form))

    return check


def _detail(name: str, known: list[str], *, has_form: bool) -> str:
    if name in known:
        return f"the query parameter `{name}` is given more than once: leave one"
    if has_form and name in FIELDS:
        return f"`{name}` has no effect in the query: send it as a form field (with curl: -F {name}=...)"
    has = f"has {', '.join(f'`{one}`' for one in known)}" if known else "has none"
    return f"there is no query parameter `{name}`: this request {has}"
