"""The web process: pages over HTTP, live progress over websockets."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentops.settings")
os.environ["AGENTOPS_WEB"] = "yes"  # for settings.py: not for what is started from here
pages = get_asgi_application()
del os.environ["AGENTOPS_WEB"]

from channels.auth import AuthMiddlewareStack  # noqa: E402 - needs the apps to be loaded
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402

from agentops.refusals import LoggedSockets  # noqa: E402
from reviews.routing import sockets as review_sockets  # noqa: E402
from runs.routing import sockets as run_sockets  # noqa: E402

sockets = URLRouter([*run_sockets, *review_sockets])
guarded = LoggedSockets(AllowedHostsOriginValidator(AuthMiddlewareStack(sockets)))
application = ProtocolTypeRouter({"http": pages, "websocket": guarded})
