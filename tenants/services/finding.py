"""Finding tenants among ten thousand, for operators: by slug, name or a member's e-mail address. Called by the admin.

Each way has an index. Hosts of endpoints are searched by `deliveries/services/hosts.py`.
"""

import re
from typing import Final

from django.contrib.postgres.search import SearchQuery, SearchVector
from django.db.models import Q, QuerySet

from tenants.models import Member, Tenant, User

MOST: Final = 50
"""Found at once. Who finds more types more."""

WORDS: Final = re.compile(r"\w+")


def matching(text: str) -> Q:
    """Tenants whose slug begins so, or whose name and slug have words that begin so."""
    wanted = Q(slug__startswith=text.lower())
    words = WORDS.findall(text)
    if words:
        # Words are letters, digits and underscores alone, so nothing in them is an operator.
        query = " & ".join(f"'{word}':*" for word in words)
        wanted |= Q(id__in=_by_words(query).values("id"))
    return wanted


def _by_words(query: str) -> "QuerySet[Tenant]":
    words = SearchVector("name", "slug", config="simple")
    return Tenant.objects.annotate(words=words).filter(
        words=SearchQuery(query, search_type="raw", config="simple")
    )


def find_tenants(text: str) -> list[Tenant]:
    """Active or not; deleted ones too, while their rows are kept. The newest first."""
    return list(Tenant.objects.filter(matching(text)).order_by("-id")[:MOST])


def find_people(text: str) -> list[User]:
    """By the beginning of the e-mail address."""
    return list(User.objects.filter(email__startswith=text.lower()).order_by("email")[:MOST])


def memberships_of_people(users: list[User]) -> list[Member]:
    """With tenants and people, of all of them at once."""
    rows = Member.unscoped.filter(user__in=users).select_related("tenant", "user")
    return list(rows.order_by("user__email", "id")[: MOST * 2])
