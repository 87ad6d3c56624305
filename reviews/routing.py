"""Which socket answers where."""

from django.urls import path

from reviews.consumers import InboxConsumer

sockets = [path("ws/inbox/", InboxConsumer.as_asgi())]
