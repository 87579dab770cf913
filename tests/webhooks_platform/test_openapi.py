"""The document and its page."""

import json
import re

import pytest
from django.contrib.staticfiles import finders
from django.test import Client


def test_the_document_is_open_to_all() -> None:
    response = Client().get("/api/v1/openapi.json")

    document = json.loads(response.content)
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")
    assert document["openapi"] == "3.1.1"
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


@pytest.mark.usefixtures("database")
def test_the_page_has_everything_from_us_and_nothing_inline() -> None:
    response = Client().get("/api/docs")

    page = response.content.decode()
    assert response.status_code == 200
    assert "script-src 'self'" in response["Content-Security-Policy"]
    assert "unsafe" not in response["Content-Security-Policy"]
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert [source for source in sources if not source.startswith(("/static/", "/api/v1/"))] == []
    assert [
        source for source in sources if source.startswith("/static/") and not finders.find(source[8:])
    ] == []
    assert re.findall(r"<script[^>]*>([^<]+)</script>|<style|\son[a-z]+=|\sstyle=", page) == []
