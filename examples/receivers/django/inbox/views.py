"""Verify, keep, answer. Nothing else happens while the sender waits."""

import base64
import hashlib
import hmac
import json
import re
import time

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from inbox.models import Webhook

TOLERANCE_SECONDS = 300


@csrf_exempt  # the signature says where it comes from
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    if not is_genuine(request):
        return HttpResponse(status=401)
    # The primary key decides, so two that come at the same time are one.
    event = json.loads(request.body)
    _, is_new = Webhook.objects.get_or_create(id=request.headers["webhook-id"], defaults={"event": event})
    return HttpResponse(status=204 if is_new else 200)


def is_genuine(request: HttpRequest) -> bool:
    message_id = request.headers.get("webhook-id", "")
    timestamp = request.headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    key = base64.b64decode(settings.WEBHOOK_SECRET.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + request.body
    expected = b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    given = request.headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(expected, each) for each in given)
