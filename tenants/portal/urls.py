"""`/portal/…`: getting in, the own account, and of a tenant's pages the catalogue and the settings.

What is about endpoints, events and deliveries stands in `deliveries/portal/urls.py`.
"""

from django.urls import path, register_converter

from tenants.portal import (
    account,
    api_keys,
    audit_log,
    catalogue,
    invitations,
    look,
    members,
    notifications,
    packs,
    passwords,
    sessions,
    settings_start,
)


class Text:
    """A converter tells its pages from those of a tenant with an odd slug: `enter`, `reset`."""

    regex = ""

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class TokenConverter(Text):
    """Of a portal link."""

    regex = "[A-Za-z0-9_-]{43}"


class SignedTokenConverter(Text):
    """Of an invitation: the token and its signature."""

    regex = "[A-Za-z0-9_-]{43}:[A-Za-z0-9_-]{43}"


class UserConverter(Text):
    regex = "usr_[0-9a-z]{26}"


class LogoConverter(Text):
    regex = "[0-9a-f]{16}"


class ColourConverter(Text):
    regex = "[0-9a-f]{6}"


register_converter(TokenConverter, "portal_token")
register_converter(SignedTokenConverter, "signed_token")
register_converter(UserConverter, "user_id")
register_converter(LogoConverter, "logo")
register_converter(ColourConverter, "colour")

urlpatterns = [
    path("", sessions.home, name="portal-home"),
    path("sign-in", sessions.sign_in, name="portal-sign-in"),
    path("sign-in/code", sessions.sign_in_code, name="portal-sign-in-code"),
    path("sign-out", sessions.sign_out, name="portal-sign-out"),
    path("language", sessions.language, name="portal-language"),
    path("enter/<portal_token:token>", sessions.enter, name="portal-enter"),
    path("invitation/<signed_token:token>", invitations.accept, name="portal-invitation"),
    path("reset", passwords.forgotten, name="portal-reset"),
    path("reset/<user_id:user>/<str:token>", passwords.reset, name="portal-reset-link"),
    path("account", account.account, name="portal-account"),
    path("account/password", account.password, name="portal-password"),
    path("account/second-factor", account.second_factor, name="portal-second-factor"),
    path("account/second-factor/off", account.second_factor_off, name="portal-second-factor-off"),
    path("look/<logo:logo>.png", look.logo_file, name="portal-logo"),
    path("look/<colour:accent>.css", look.stylesheet, name="portal-style"),
    # --- of a tenant ---
    path("<str:tenant>/catalogue", catalogue.listing, name="portal-catalogue"),
    path("<str:tenant>/catalogue/packs", packs.listing, name="portal-packs"),
    path("<str:tenant>/catalogue/packs/<str:pack>", packs.detail, name="portal-pack"),
    path("<str:tenant>/catalogue/packs/<str:pack>/install", packs.install, name="portal-pack-install"),
    path("<str:tenant>/catalogue/types/<str:name>", catalogue.detail, name="portal-event-type"),
    path("<str:tenant>/settings", settings_start.start, name="portal-settings"),
    path("<str:tenant>/settings/members", members.listing, name="portal-members"),
    path("<str:tenant>/settings/members/<str:member>/role", members.change_role, name="portal-member-role"),
    path("<str:tenant>/settings/members/<str:member>/remove", members.remove, name="portal-member-remove"),
    path(
        "<str:tenant>/settings/invitations/<str:invitation>/again",
        members.send_again,
        name="portal-invitation-again",
    ),
    path(
        "<str:tenant>/settings/invitations/<str:invitation>/end",
        members.end_invitation,
        name="portal-invitation-end",
    ),
    path("<str:tenant>/settings/keys", api_keys.listing, name="portal-keys"),
    path("<str:tenant>/settings/keys/new", api_keys.create, name="portal-key-new"),
    path("<str:tenant>/settings/keys/<str:key>/revoke", api_keys.revoke, name="portal-key-revoke"),
    path("<str:tenant>/settings/audit", audit_log.listing, name="portal-audit"),
    path("<str:tenant>/settings/audit.csv", audit_log.as_csv, name="portal-audit-csv"),
    path("<str:tenant>/settings/notifications", notifications.preferences, name="portal-notifications"),
    path("<str:tenant>/settings/look", look.look, name="portal-look"),
    path("<str:tenant>/settings/look/remove-logo", look.remove_logo, name="portal-look-remove"),
]

catalogue_urlpatterns = [
    path("<str:tenant>", catalogue.public_listing, name="public-catalogue"),
    path("<str:tenant>/<str:name>", catalogue.public_detail, name="public-event-type"),
]
"""`/catalogue/…`: for anybody, where a tenant wants it."""
