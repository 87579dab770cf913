"""Endpoints in the portal stopped, started, deleted and brought back; and what they missed meanwhile."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, resolve_url
from django.utils import timezone
from django.utils.translation import gettext as _

from deliveries.portal.deliveries import not_sendable
from deliveries.portal.endpoints import found, to_endpoint, too_many_endpoints
from deliveries.portal.history import to_job
from deliveries.services import endpoint_deletion, missed, stopping
from deliveries.services.deliveries import EndpointStopped
from deliveries.services.endpoint_changes import EndpointLimitReached
from deliveries.services.endpoint_deletion import TooLate
from deliveries.services.jobs import JobRunning
from deliveries.services.missed import NothingMissed
from tenants import ids
from tenants.portal.entry import PortalRequest, changes


@changes()
def enable(request: PortalRequest, endpoint: str) -> HttpResponse:
    """The page it leads to asks whether to send what was missed."""
    row = found(request, endpoint)
    stopping.enable_endpoint(actor=request.actor, endpoint=row)
    messages.success(request, _("Enabled. Events published from now on are sent to it."))
    return to_endpoint(request, row)


@changes()
def disable(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    stopping.disable_endpoint(actor=request.actor, endpoint=row)
    messages.success(request, _("Disabled. Nothing is sent to it until you enable it again."))
    return to_endpoint(request, row)


@changes()
def delete(request: PortalRequest, endpoint: str) -> HttpResponse:
    """At once, by the API's own service. The list offers to undo it while that is possible."""
    row = found(request, endpoint)
    endpoint_deletion.delete_endpoint(actor=request.actor, endpoint=row, is_undoable=True)
    path = resolve_url("portal-endpoints", tenant=request.tenant.slug)
    return redirect(f"{path}?deleted={ids.to_text(ids.ENDPOINT, row.id)}")


@changes()
def restore(request: PortalRequest, endpoint: str) -> HttpResponse:
    try:
        restored = endpoint_deletion.restore_endpoint(
            actor=request.actor, tenant=request.tenant, reference=endpoint
        )
    except TooLate:
        messages.error(
            request,
            _(
                "It is too late to undo this: the endpoint's secret has been destroyed. Add the endpoint anew."
            ),
        )
    except EndpointLimitReached as error:
        messages.error(request, too_many_endpoints(error))
    else:
        messages.success(request, _("The endpoint is back, with its secret."))
        if restored.is_uid_lost:
            messages.warning(request, _("Another endpoint has its own id by now, so it came back without."))
        return to_endpoint(request, restored.endpoint)
    return redirect("portal-endpoints", tenant=request.tenant.slug)


@changes()
def send_missed(request: PortalRequest, endpoint: str) -> HttpResponse:
    """`leave` in the form: nobody wants it."""
    row = found(request, endpoint)
    try:
        if "leave" in request.POST:
            missed.leave_missed(actor=request.actor, endpoint=row)
            messages.success(request, _("What it missed is left as it is."))
            return to_endpoint(request, row)
        job = missed.send_missed(actor=request.actor, endpoint=row, now=timezone.now())
    except NothingMissed:
        messages.info(request, _("Nothing is left to send: somebody has taken care of it."))
    except EndpointStopped as error:
        messages.error(request, not_sendable(error))
    except JobRunning as error:
        if error.job_id is not None:
            messages.info(
                request, _("Events are being sent to it again already. When that is done, ask again.")
            )
            return to_job(request, error.job_id)
        messages.info(request, _("Try again: a job has ended in this moment."))
    else:
        return to_job(request, job.id)
    return to_endpoint(request, row)
