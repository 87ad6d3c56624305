"""Where every page lives."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic.base import RedirectView

from agentops import dashboard, health

urlpatterns = [
    path("", dashboard.dashboard, name="dashboard"),
    path("", include("runs.urls")),
    path("", include("reviews.urls")),
    path("accounts/", include("allauth.urls")),
    path("admin/login/", RedirectView.as_view(pattern_name="account_login", query_string=True)),
    path("admin/", admin.site.urls),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
]
