"""`Idempotency-Key` on POSTs: the first 2xx answer is kept in the transaction of the work, and given again.

The publish views do the same in `deliveries/pipeline/ingest.py`; both share the table, the lock and the space of keys.
"""

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

from django.db import connection, transaction
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import validation
from tenants.api import problems
from tenants.api.rendering import body_of, encode
from tenants.encryption import decrypt, encrypt
from tenants.idempotency import KEPT, fingerprint, lock_key
from tenants.models import IdempotencyRecord
from tenants.validation import InvalidContent

Post = TypeVar("Post", bound=Callable[..., HttpResponseBase])

MARK = "is_idempotent"
"""What a test looks for on every POST."""


def idempotent(*, holds_secret: bool = False, prepared: bool = False) -> Callable[[Post], Post]:
    """Decorates the `post` of a view. `holds_secret`: the reply is stored encrypted, no cache may keep it, and only the
    API key that got it gets it again. What another may be given, the view has to judge: to it, this is another request.

    `prepared`: before the transaction, and only if there is no reply to give again, the view's `prepare_post` is
    called. What takes long, or asks others, belongs there.
    """

    def decorate(post: Post) -> Post:
        @wraps(post)
        def once(view: Any, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
            key = request.META.get("HTTP_IDEMPOTENCY_KEY")
            if key is None:
                if prepared:
                    view.prepare_post(request)
                return post(view, request, *args, **kwargs)
            check_key(key)
            space = view.idempotency_space
            digest = fingerprint("POST", request.get_full_path(), body_of(request))
            if holds_secret:
                digest = hashlib.sha256(digest + view.caller.key_id.bytes).digest()
            if prepared:
                with transaction.atomic():
                    if (kept := look(space, key, digest)) is not None:
                        return again(kept)
                view.prepare_post(request)
            with transaction.atomic():
                if (kept := look(space, key, digest)) is not None:
                    return again(kept)
                response = post(view, request, *args, **kwargs)
                if 200 <= response.status_code < 300:
                    assert isinstance(response, Response)
                    keep(
                        space,
                        key,
                        digest,
                        b"" if response.data is None else encode(response.data),
                        status_code=response.status_code,
                        location=response.get("Location", ""),
                        holds_secret=holds_secret,
                    )
                else:
                    transaction.set_rollback(True)
            return response

        setattr(once, MARK, True)
        return once  # type: ignore[return-value] # the same signature, for the only caller: DRF

    return decorate


def check_key(key: str) -> None:
    try:
        validation.idempotency_key(key)
    except InvalidContent as invalid:
        raise problems.invalid(
            [("Idempotency-Key", error.code, error.message) for error in invalid.errors]
        ) from None


def look(space: UUID, key: str, digest: bytes) -> IdempotencyRecord | None:
    """Inside the transaction of the work: the first answer, if there is one. Raises 409 while the first is running."""
    with connection.cursor() as cursor:
        # Not a wait: the first may take long. Held to the end of the transaction, so what it wrote is seen below.
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [lock_key(space.bytes, key)])
        (is_first,) = cursor.fetchone()
    kept = IdempotencyRecord.objects.filter(
        space=space, key=key, created_at__gt=timezone.now() - KEPT
    ).first()
    if kept is not None:
        if bytes(kept.fingerprint) != digest:
            raise problems.Problem(
                422,
                "idempotency_key_reused",
                "Idempotency key reused",
                "This Idempotency-Key was used for another request in the last 24 hours.",
                errors=[
                    ("Idempotency-Key", "idempotency_key_reused", "Must be a new key for a new request.")
                ],
            )
        return kept
    if not is_first:
        raise problems.conflict(
            "idempotency_in_progress", "The first request with this Idempotency-Key is still running."
        )
    return None


def keep(
    space: UUID,
    key: str,
    digest: bytes,
    body: bytes,
    *,
    status_code: int,
    location: str = "",
    holds_secret: bool = False,
) -> None:
    IdempotencyRecord.objects.bulk_create(
        [
            IdempotencyRecord(
                space=space,
                key=key,
                fingerprint=digest,
                status_code=status_code,
                body=encrypt(body, context=_context(space, key)) if holds_secret else body,
                is_encrypted=holds_secret,
                location=location,
                created_at=timezone.now(),
            )
        ],
        # One that is older than 24 h may still lie there.
        update_conflicts=True,
        unique_fields=["space", "key"],
        update_fields=[
            "fingerprint",
            "status_code",
            "body",
            "is_encrypted",
            "location",
            "event_id",
            "event_ids",
            "created_at",
        ],
    )


def again(kept: IdempotencyRecord) -> HttpResponse:
    body = bytes(kept.body)
    if kept.is_encrypted:
        body = decrypt(body, context=_context(kept.space, kept.key))
    response = HttpResponse(body, status=kept.status_code, content_type="application/json")
    response["Idempotent-Replayed"] = "true"
    if kept.location:
        response["Location"] = kept.location
    if kept.is_encrypted:
        response["Cache-Control"] = "no-store"
    return response


def _context(space: UUID, key: str) -> bytes:
    return b"|".join([space.bytes, hashlib.sha256(key.encode()).digest(), b"idempotency"])
