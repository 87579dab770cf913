"""URLs whose views fail, for `pytest.mark.urls`."""

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.urls import path


def without_database(request: HttpRequest) -> HttpResponse:
    raise OperationalError("the database is gone")


urlpatterns = [path("api/v1/plain", without_database)]
