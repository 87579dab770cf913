"""The web server as `deploy/` starts it, behind a proxy that ends TLS: people sign in, whether it says so or not."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.deploy.test_files import ROOT, procfile
from tests.deploy.test_start import PRODUCTION, SECONDS, wait_for
from tests.support.portal import PASSWORD, make_user
from tests.support.tls_proxy import AUTHORITY, tls_proxy
from webhooks_platform.embedded.servers import free_port

HOST = "webhooks.example.com"


@pytest.fixture(scope="module")
def web(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Its port."""
    port = free_port()
    environment = os.environ | PRODUCTION
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [word.replace("${PORT:-8000}", str(port)) for word in procfile()["web"]]
    with (tmp_path_factory.mktemp("web") / "log").open("wb") as output:
        server = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health/live")
        yield port
    finally:
        server.terminate()
        server.wait(SECONDS)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(("says_so", "told"), [(True, "max-age=31536000"), (False, None)])
def test_people_sign_in_through_it(web: int, tmp_path: Path, says_so: bool, told: str | None) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    person = make_user()

    with tls_proxy(web, says_so=says_so) as port, requests.Session() as browser:
        browser.trust_env, browser.verify = False, str(tmp_path / "ca.pem")
        browser.headers["Host"] = HOST
        url = f"https://127.0.0.1:{port}/portal/sign-in"
        page = browser.get(url)
        token, *_ = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        form = {"csrfmiddlewaretoken": token, "username": person.email, "password": PASSWORD}
        elsewhere = browser.post(
            url, form, headers={"Origin": "https://elsewhere.example"}, allow_redirects=False
        )
        answer = browser.post(url, form, headers={"Origin": f"https://{HOST}"}, allow_redirects=False)

    assert page.headers.get("Strict-Transport-Security") == told
    assert elsewhere.status_code == 403
    assert (answer.status_code, answer.headers["Location"]) == (302, "/portal/")
    assert "sessionid" in answer.cookies
