"""Which socket answers where."""

from django.urls import path

from runs.consumers import AlertsConsumer, RunConsumer, RunsConsumer

sockets = [
    path("ws/runs/<int:run_id>/", RunConsumer.as_asgi()),
    path("ws/runs/", RunsConsumer.as_asgi()),
    path("ws/alerts/", AlertsConsumer.as_asgi()),
]
