"""Lists by keyset, as replies of the API. How they are cut stands in `tenants/paging.py`."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db import models
from rest_framework.response import Response

from tenants import paging
from tenants.api import problems
from tenants.paging import InvalidCursor

Row = TypeVar("Row", bound=models.Model)


def page(
    query: dict[str, Any],
    rows: "models.QuerySet[Row]",
    *,
    serialize: Callable[[Row], Any],
    keys: Sequence[str] = ("id",),
    ascending: bool = False,
) -> Response:
    """A page of `rows`, as `paging.cut` has it. `query` is the view's: it has `limit` and `cursor`.

    Raises 422 `invalid_cursor` for a cursor that is not of this list.
    """
    try:
        found = paging.cut(rows, cursor=query["cursor"], limit=query["limit"], keys=keys, ascending=ascending)
    except InvalidCursor:
        raise problems.Problem(
            422,
            "invalid_cursor",
            "Invalid cursor",
            "This cursor is not of this list. Leave it out to begin anew.",
            errors=[("cursor", "invalid_cursor", "Must be a cursor of an earlier reply.")],
        ) from None
    return Response(
        {
            "data": [serialize(row) for row in found.rows],
            "next_cursor": found.next_cursor,
            "prev_cursor": found.prev_cursor,
        }
    )
