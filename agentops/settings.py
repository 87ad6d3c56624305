"""All settings in one file: the environment is read here, once."""

import sys
from importlib.util import find_spec
from pathlib import Path

import environ
import structlog
from django.core.exceptions import ImproperlyConfigured

from runs.values import name_step

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent

# --- where we are -----------------------------------------------------------------------------------------------
AGENTOPS_ENV = env.str("AGENTOPS_ENV", default="development")
if AGENTOPS_ENV not in ("development", "test", "production"):
    raise ImproperlyConfigured(f"AGENTOPS_ENV is {AGENTOPS_ENV!r}: it must be development, test or production.")
PRODUCTION = AGENTOPS_ENV == "production"
DEBUG = env.bool("DEBUG", default=False)
AGENTOPS_LOCAL = Path(env.str("AGENTOPS_LOCAL", default=str(BASE_DIR / ".local")))

for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY"):
    if not env.str(name, default=""):
        raise ImproperlyConfigured(
            f"{name} is not set. Start through `make run` or `python manage.py ...`, which bring services of their own "
            f"in development, or set {name} in the environment (docs/operations.md)."
        )
SECRET_KEY = env.str("SECRET_KEY")
REDIS_URL = env.str("REDIS_URL")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[] if PRODUCTION else ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

AGENT_APPS = env.list("AGENT_APPS", default=[])  # apps of your own with an `agents` module, on the Python path
for name in AGENT_APPS:
    if find_spec(name.partition(".")[0]) is None:
        raise ImproperlyConfigured(f"AGENT_APPS names {name!r}, but Python finds no such package: it lies beside manage.py.")

# --- apps ---------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "agentops",
    "reviews",
    "runs",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "django_rq",
    "django_htmx",
    "template_partials",
    "lucide",
    "allauth",
    "allauth.account",
    "pgtrigger",
    "pghistory",
    "csp",
    "django_structlog",
    *AGENT_APPS,
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "runs.payloads.PayloadsMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "pghistory.middleware.HistoryMiddleware",  # the last: it is synchronous, and so are then all before it, in one thread
]
PGHISTORY_MIDDLEWARE_METHODS = ("POST", "PUT", "PATCH", "DELETE")  # GET changes nothing
ROOT_URLCONF = "agentops.urls"
ASGI_APPLICATION = "agentops.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
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
                "agentops.pages.chrome",
                "runs.payloads.context",
            ],
            "builtins": ["template_partials.templatetags.partials"],
        },
    }
]

# --- PostgreSQL is the truth --------------------------------------------------------------------------------------
DATABASES = {"default": env.db("DATABASE_URL")}
if DATABASES["default"]["ENGINE"] != "django.db.backends.postgresql":
    raise ImproperlyConfigured("DATABASE_URL must name a PostgreSQL database: agentops runs on nothing else.")
if env.bool("AGENTOPS_WEB", default=False):  # set by asgi.py: every request is a thread of its own there, and they share these
    shared = {"min_size": 1, "max_size": env.int("WEB_CONNECTIONS", default=20), "timeout": 5, "reconnect_timeout": 5}
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = shared
    DATABASES["default"]["ENGINE"] = "agentops.web_database"
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DATABASES["default"].setdefault("OPTIONS", {})["connect_timeout"] = 5
DATABASES["default"]["OPTIONS"]["prepare_threshold"] = 0  # of the statements of runs/pen.py: Django's own are never prepared
BANK_DATABASE_URL = env.str("BANK_DATABASE_URL", default="")

# --- Redis is the doorbell ----------------------------------------------------------------------------------------
# socket_timeout 30: redis-py 8 would default to 5 s, which ends every idle websocket (channels_redis#422).
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {
            "hosts": [{"address": REDIS_URL, "socket_timeout": 30, "max_connections": 1000}],
            "prefix": "agentops",
            "capacity": 1000,
        },
    }
}
RQ_QUEUES = {
    "default": {
        # A page must not wait for ever on a Redis that hangs; job processes raise it for as long as they wait for a job.
        "URL": f"{REDIS_URL}{'&' if '?' in REDIS_URL else '?'}socket_timeout=3&socket_connect_timeout=2",
        "DEFAULT_TIMEOUT": -1,  # runs/keeper.py watches each step
        "DEFAULT_RESULT_TTL": 0,
        "SERIALIZER": "rq.serializers.JSONSerializer",
    }
}
RQ = {"WORKER_CLASS": "runs.jobs.JobProcess", "JOB_CLASS": "runs.jobs.AllowedJob", "SHOW_ADMIN_LINK": True}
CACHES = {
    "default": {
        "BACKEND": "agentops.cache.ForgetfulRedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 2},  # without, a page waits for ever on one that hangs
    }
}

# --- the engine (docs/operations.md explains each) ------------------------------------------------------------------
LEASE_SECONDS = env.int("LEASE_SECONDS", default=12)
LEASE_RENEW_SECONDS = env.int("LEASE_RENEW_SECONDS", default=3)
STEP_TIMEOUT_SECONDS = env.float("STEP_TIMEOUT_SECONDS", default=900)
CANCEL_SECONDS = env.float("CANCEL_SECONDS", default=12)
JOB_PROCESSES = env.int("JOB_PROCESSES", default=2)  # of `up`
JOB_THREADS = env.int("JOB_THREADS", default=16)
JOB_GRACE_SECONDS = env.float("JOB_GRACE_SECONDS", default=25)
JOB_CONNECTIONS = env.int("JOB_CONNECTIONS", default=8)  # to PostgreSQL, for all threads of a job process
SWEEP_SECONDS = env.float("SWEEP_SECONDS", default=1.0)
GATHER_THREADS = env.int("GATHER_THREADS", default=8)
CHILDREN_LIMIT = env.int("CHILDREN_LIMIT", default=10_000)
ALLOWED_PRIVATE_NETWORKS = env.list("ALLOWED_PRIVATE_NETWORKS", default=[])  # where URLs of people and agents may lead

# --- retention ------------------------------------------------------------------------------------------------------
PRUNE_DAYS = env.int("PRUNE_DAYS", default=0)  # runs that ended so long ago are removed at night; 0: only by `manage.py prune`
PRUNE_HOUR = env.int("PRUNE_HOUR", default=2)  # UTC
PRUNE_ARCHIVE = env.str("PRUNE_ARCHIVE", default="")  # a directory into which they are written first

# --- reviews ----------------------------------------------------------------------------------------------------------
UNDO_SECONDS = env.float("UNDO_SECONDS", default=0 if AGENTOPS_ENV == "test" else 8)  # a decision can be taken back so long

# --- the shipped agent ----------------------------------------------------------------------------------------------
MODEL_CACHE = Path(env.str("AGENTOPS_MODEL_CACHE", default=str(AGENTOPS_LOCAL / "models")))
CARD_PROCESSOR_URL = env.str("CARD_PROCESSOR_URL", default="http://127.0.0.1:8010")
AGENTOPS_MODEL = env.str("AGENTOPS_MODEL", default="")
AGENTOPS_MODEL_BASE_URL = env.str("AGENTOPS_MODEL_BASE_URL", default="")
AGENTOPS_MODEL_API_KEY = env.str("AGENTOPS_MODEL_API_KEY", default="")

CURRENCY = env.str("CURRENCY", default="USD")
MODEL_PRICES = env.str("MODEL_PRICES", default="")

# --- notices --------------------------------------------------------------------------------------------------------
PUBLIC_URL = env.str("PUBLIC_URL", default=next(iter(CSRF_TRUSTED_ORIGINS), "http://127.0.0.1:8000"))  # of links in messages
vars().update(env.email_url("EMAIL_URL", default="smtp://localhost:25" if PRODUCTION else "consolemail://"))
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="agentops@localhost")

# --- what leaves for other monitors -----------------------------------------------------------------------------------
OTEL_EXPORTER_OTLP_ENDPOINT = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", default="")  # traces go there, by OTLP over HTTP
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")  # of /metrics, which is off without one

# --- sign-in --------------------------------------------------------------------------------------------------------
AUTHENTICATION_BACKENDS = ["agentops.accounts.OneQuestion", "allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
if AGENTOPS_ENV == "test":
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the real one costs each test seconds
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_REAUTHENTICATION_TIMEOUT = 15 * 60
ACCOUNT_ADAPTER = "agentops.accounts.NobodySignsUp"
ACCOUNT_LOGOUT_ON_GET = False
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "dashboard"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True  # pages carry the token in their forms

# --- safety ---------------------------------------------------------------------------------------------------------
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 32_000_000  # the largest value of a step (10 MB) as a form sends it: up to three letters for a byte
if PRODUCTION:
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=True)
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-session", "__Host-csrf"
SELF, NONE = "'self'", "'none'"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
        "report-uri": ["/blocked/"],  # agentops/refusals.py
    }
}

# --- pages ----------------------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = AGENTOPS_LOCAL / "static" if PRODUCTION else None  # in development they are served from where they lie
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = not PRODUCTION
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

# --- logs: one line, with run and step ------------------------------------------------------------------------------
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
LOG_JSON = env.bool("LOG_JSON", default=PRODUCTION)
SHARED_LOG_STEPS: list[structlog.types.Processor] = [
    structlog.contextvars.merge_contextvars,
    name_step,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def without_trace_where_refused(_logger: object, _name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Django writes a traceback for each request that is too large or names an unknown host: that is nobody's fault here."""
    if getattr(event["_record"], "status_code", 500) < 500:
        event.pop("exc_info", None)
    return event


structlog.configure(
    processors=[*SHARED_LOG_STEPS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processor": structlog.processors.JSONRenderer() if LOG_JSON else structlog.dev.ConsoleRenderer(colors=False),
            "foreign_pre_chain": [without_trace_where_refused, *SHARED_LOG_STEPS],
        }
    },
    "filters": {
        "once": {"()": "django.utils.log.CallbackFilter", "callback": lambda record: "request_failed" not in str(record.msg)}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": sys.stderr}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "rq": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "httpx2": {"level": "WARNING"},
        "django.server": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},  # writes what failed, with its traceback
        "django_structlog.middlewares.request": {"level": "WARNING", "filters": ["once"]},  # and this one what was refused
    },
}
