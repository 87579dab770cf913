"""`/portal/…`: getting in, and a tenant's catalogue. What is sent stands in `deliveries/portal/urls.py`."""

from django.urls import path, register_converter

from tenants.portal import packs, sessions


class TokenConverter:
    """Of a portal link: 43 characters, so that no page of a tenant called `enter` is taken for one."""

    regex = "[A-Za-z0-9_-]{43}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(TokenConverter, "portal_token")

urlpatterns = [
    path("", sessions.home, name="portal-home"),
    path("sign-in", sessions.sign_in, name="portal-sign-in"),
    path("sign-out", sessions.sign_out, name="portal-sign-out"),
    path("enter/<portal_token:token>", sessions.enter, name="portal-enter"),
    path("<str:tenant>/catalogue/packs", packs.listing, name="portal-packs"),
    path("<str:tenant>/catalogue/packs/<str:pack>", packs.detail, name="portal-pack"),
    path("<str:tenant>/catalogue/packs/<str:pack>/install", packs.install, name="portal-pack-install"),
]
