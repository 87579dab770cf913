"""All settings, read from the environment. An odd value stops the start with a hint."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.http.request import validate_host

from webhooks_platform import VERSION, logs
from webhooks_platform.env import (
    env_allowed_networks,
    env_authorities,
    env_bool,
    env_broker,
    env_choice,
    env_database,
    env_email,
    env_emails,
    env_encryption_keys,
    env_host,
    env_hosts,
    env_int,
    env_name_servers,
    env_networks,
    env_origins,
    env_proxy,
    env_public_url,
    env_sender,
    env_str,
    env_url,
    origin_of,
)

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = env_bool("DEBUG", default=False)

INSECURE_SECRET_KEY = "insecure-development-key"  # noqa: S105 - refused unless DEBUG is on
SECRET_KEY = env_str("SECRET_KEY") or INSECURE_SECRET_KEY
if SECRET_KEY == INSECURE_SECRET_KEY and not DEBUG:
    raise ImproperlyConfigured(
        "SECRET_KEY is not set. Set it to 50 random characters, or DEBUG=true to try things out."
    )
ALLOWED_HOSTS = env_hosts("ALLOWED_HOSTS") or (["*"] if DEBUG else ["localhost", "127.0.0.1", "[::1]"])

INSTALLED_APPS = [
    "webhooks_platform",
    "tenants",
    "deliveries",
    "webhooks_platform.admin_app.OperatorAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_celery_beat",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]

# What pages need is wrapped by `pages_only`, so that the API and the hot publish path do not pay for it.
MIDDLEWARE = [
    "webhooks_platform.middleware.request_id",
    "webhooks_platform.middleware.tls_at_the_proxy",
    "webhooks_platform.middleware.inbound_host",
    "django.middleware.security.SecurityMiddleware",
    "webhooks_platform.middleware.PagesOnly",
    "webhooks_platform.middleware.cors",
    "webhooks_platform.middleware.ProblemsBelowApi",
]
PAGES_MIDDLEWARE = [
    "tenants.portal.embedding.EmbeddedPortal",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "webhooks_platform.middleware.CsrfByFetchMetadata",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
# These checks look for names in MIDDLEWARE; ours stand in PAGES_MIDDLEWARE, and tests/webhooks_platform proves they act.
SILENCED_SYSTEM_CHECKS = [
    "admin.E408",
    "admin.E409",
    "admin.E410",
    "security.W002",
    "security.W003",
    # Other names below the public one are not ours to decide about, nor is a browser's preload list.
    "security.W005",
    "security.W021",
    # TLS ends at the proxy in front, which redirects; /health and /metrics are asked without it.
    "security.W008",
]

ROOT_URLCONF = "webhooks_platform.urls"
WSGI_APPLICATION = "webhooks_platform.wsgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# One database engine: PostgreSQL. Commands that need no database load the settings without one.
# Processes that serve or work refuse to start without: servers.py.
DATABASE_URL = env_str("DATABASE_URL")
DATABASES: dict[str, Any] = {
    "default": env_database("DATABASE_URL") or {"ENGINE": "django.db.backends.dummy"}
}
WEBHOOKS_DATABASE_POOL = env_int("WEBHOOKS_DATABASE_POOL", 8, low=1, high=100)
DATABASES["default"]["OPTIONS"] = DATABASES["default"].get("OPTIONS", {}) | {
    "application_name": "webhooks-web",
    "connect_timeout": 5,
    # A database whose machine vanished says nothing; TCP by itself waits for a quarter of an hour, or for ever.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    # An old snapshot makes the queue tables slow, so no page may hold one open.
    "options": "-c statement_timeout=30s -c idle_in_transaction_session_timeout=30s",
    "pool": {"min_size": 1, "max_size": WEBHOOKS_DATABASE_POOL, "timeout": 5},
}
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "tenants.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

CSRF_FAILURE_VIEW = "tenants.portal.errors.csrf_failure"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "locale"]
LANGUAGE_COOKIE_HTTPONLY = True
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True

PASSWORD_RESET_TIMEOUT = 3600

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = env_bool("WEBHOOKS_SECURE_COOKIES", default=not DEBUG)
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE
LANGUAGE_COOKIE_SECURE = SESSION_COOKIE_SECURE
SECURE_CONTENT_TYPE_NOSNIFF = True
# Once the public URL is https, browsers are to use nothing else for a year.
SECURE_HSTS_SECONDS = env_int(
    "WEBHOOKS_HSTS_SECONDS",
    31_536_000 if env_public_url("WEBHOOKS_PUBLIC_URL").startswith("https://") else 0,
    low=0,
    high=63_072_000,
)
SECURE_HSTS_INCLUDE_SUBDOMAINS = False
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}
# The hot path reads bodies itself; everything else is small.
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024 + 1024

# --- logs ---------------------------------------------------------------------------------------------------------
WEBHOOKS_LOG_FORMAT = env_choice("WEBHOOKS_LOG_FORMAT", "console" if DEBUG else "json", ("json", "console"))
"""One JSON object a line, or plain lines for people."""
WEBHOOKS_LOG_LEVEL = env_choice("WEBHOOKS_LOG_LEVEL", "INFO", logs.LEVELS)
LOGGING = logs.logging_settings(form=WEBHOOKS_LOG_FORMAT, level=WEBHOOKS_LOG_LEVEL)

# --- traces -------------------------------------------------------------------------------------------------------
# OpenTelemetry's own names; its SDK reads them, and those of OTEL_… that are not here, by itself.
OTEL_ENDPOINT = env_url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or env_url("OTEL_EXPORTER_OTLP_ENDPOINT")
OTEL_PROTOCOL = env_choice("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", ("http/protobuf",))
OTEL_SAMPLER = env_choice(
    "OTEL_TRACES_SAMPLER",
    "parentbased_always_on",
    (
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ),
)
WEBHOOKS_TRACES = bool(OTEL_ENDPOINT) and not env_bool("OTEL_SDK_DISABLED", default=False)
"""Whether publishes and attempts make spans. Off, nothing of OpenTelemetry is loaded."""

# --- e-mail -------------------------------------------------------------------------------------------------------
EMAIL = env_email("WEBHOOKS_EMAIL_URL", "console:" if DEBUG else "")
EMAIL_BACKEND = EMAIL.backend
EMAIL_HOST, EMAIL_PORT = EMAIL.host, EMAIL.port
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = EMAIL.user, EMAIL.password
EMAIL_USE_TLS, EMAIL_USE_SSL = EMAIL.starts_tls, EMAIL.is_tls
EMAIL_FILE_PATH = EMAIL.folder
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env_sender("WEBHOOKS_EMAIL_FROM", "webhooks@localhost")

# --- Celery -------------------------------------------------------------------------------------------------------
CELERY_BROKER_URL = env_broker("CELERY_BROKER_URL") or "redis://not-configured.invalid:6379/0"

# --- REST framework -----------------------------------------------------------------------------------------------
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_RENDERER_CLASSES": ["tenants.api.rendering.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["tenants.api.rendering.StrictJSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": ["tenants.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["tenants.api.permissions.HasScope"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "tenants.api.rendering.AlwaysJSON",
    "DEFAULT_SCHEMA_CLASS": "tenants.api.schema.Schema",
    "EXCEPTION_HANDLER": "webhooks_platform.api_errors.handle",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
}

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Webhooks Platform",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SORT_OPERATION_PARAMETERS": False,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": ["tenants.api.schema.add_components"],
}

# --- the platform's own -------------------------------------------------------------------------------------------
WEBHOOKS_ALLOWED_NETWORKS = env_allowed_networks("WEBHOOKS_ALLOWED_NETWORKS")
WEBHOOKS_ENCRYPTION_KEYS = env_encryption_keys("WEBHOOKS_ENCRYPTION_KEYS")
if not WEBHOOKS_ENCRYPTION_KEYS:
    if not DEBUG:
        raise ImproperlyConfigured(
            "WEBHOOKS_ENCRYPTION_KEYS is not set. Set it to 'id:base64' of 32 random bytes."
        )
    WEBHOOKS_ENCRYPTION_KEYS = [("insecure", b"insecure development key 32 byte")]
WEBHOOKS_OPERATORS_SECOND_FACTOR = env_bool("WEBHOOKS_OPERATORS_SECOND_FACTOR", default=not DEBUG)
"""The admin is for operators who have a second factor. Who has none is led to the page that turns it on."""
WEBHOOKS_TRANSPORT = env_choice("WEBHOOKS_TRANSPORT", "curl", ("curl", "requests"))
WEBHOOKS_PUBLIC_URL = env_public_url("WEBHOOKS_PUBLIC_URL")
# Also behind a proxy that ends TLS and does not say so.
CSRF_TRUSTED_ORIGINS = [origin] if (origin := origin_of(WEBHOOKS_PUBLIC_URL)) else []
WEBHOOKS_TRUSTED_PROXIES = env_networks("WEBHOOKS_TRUSTED_PROXIES")
WEBHOOKS_DNS_SERVERS = env_name_servers("WEBHOOKS_DNS_SERVERS")
"""Name servers (`ip` or `ip:port`) instead of the machine's own."""
WEBHOOKS_CA_FILE = env_authorities("WEBHOOKS_CA_FILE")
"""PEM file of authorities that endpoints' certificates may come from, instead of the usual ones."""
WEBHOOKS_EGRESS_PROXY = env_proxy("WEBHOOKS_EGRESS_PROXY")
"""`http://[user:password@]host:port`: everything sent to customers' addresses goes through it, by CONNECT."""
WEBHOOKS_MAX_IN_FLIGHT = env_int("WEBHOOKS_MAX_IN_FLIGHT", 2048, low=16, high=20000)
"""C of the design: requests that one dispatcher has in the air at once."""
WEBHOOKS_DISPATCHERS = env_int("WEBHOOKS_DISPATCHERS", 1, low=1, high=64)
"""Dispatchers wanted alive at once while there is work; each needs a process of the dispatch worker."""
WEBHOOKS_WEB_PORT = env_int("WEBHOOKS_WEB_PORT", 8000, low=1, high=65535)
"""The port that the platform itself listens on: never a destination of deliveries on its own machine."""
WEBHOOKS_OWN_PORTS = {
    WEBHOOKS_WEB_PORT,
    int(DATABASES["default"].get("PORT") or 5432),
    urlsplit(CELERY_BROKER_URL).port or 6379,
}
"""Never a destination of deliveries inside the allowed networks, where these servers are."""
WEBHOOKS_USER_AGENT = f"Webhooks-Platform/{VERSION}"
WEBHOOKS_API_RATE_LIMIT = env_int("WEBHOOKS_API_RATE_LIMIT", 0, low=0, high=1_000_000)
"""Requests per minute for each API key; 0 is none."""
WEBHOOKS_INBOUND_RATE_LIMIT = env_int("WEBHOOKS_INBOUND_RATE_LIMIT", 60_000, low=1, high=1_000_000)
"""Requests per minute to each source that has no limit of its own."""
WEBHOOKS_INBOUND_RETENTION_DAYS = env_int("WEBHOOKS_INBOUND_RETENTION_DAYS", 14, low=1, high=365)
"""How long the requests that came to sources are kept."""
WEBHOOKS_INBOUND_HOST = env_host("WEBHOOKS_INBOUND_HOST")
"""The host of `/in/…` alone, if incoming webhooks are to have one apart from pages and API."""
if WEBHOOKS_INBOUND_HOST and not validate_host(WEBHOOKS_INBOUND_HOST, ALLOWED_HOSTS):
    raise ImproperlyConfigured(
        f"WEBHOOKS_INBOUND_HOST={WEBHOOKS_INBOUND_HOST!r} is refused by ALLOWED_HOSTS. List it there, too."
    )
WEBHOOKS_HEARTBEAT_FILE = env_str("WEBHOOKS_HEARTBEAT_FILE")
"""Touched every few seconds by the main loop of a worker or of beat, for probes; none by default."""
WEBHOOKS_METRICS_TOKEN = env_str("WEBHOOKS_METRICS_TOKEN")
"""Opens `/metrics` to other machines; this one may always read it."""
WEBHOOKS_OPERATOR_EMAILS = env_emails("WEBHOOKS_OPERATOR_EMAILS")
"""Who is told of all tenants' endpoints that fail, recover or are disabled; a digest, at most every 15 minutes."""
WEBHOOKS_OPERATOR_SLACK_URL = env_url("WEBHOOKS_OPERATOR_SLACK_URL")
"""The same, to a Slack-compatible incoming webhook."""
WEBHOOKS_CORS_ORIGINS = env_origins("WEBHOOKS_CORS_ORIGINS")
