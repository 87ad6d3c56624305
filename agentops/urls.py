"""Where every page lives."""

from allauth.account import views as account
from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from django.views.generic.base import RedirectView

from agentops import about, dashboard, health, metrics, refusals
from agentops.admin import sign_in

handler400 = "agentops.pages.bad_request"
handler404 = "agentops.pages.not_found"
handler500 = "agentops.pages.failed"
urlpatterns = [
    path("", dashboard.dashboard, name="dashboard"),
    path("", include("runs.urls")),
    path("", include("reviews.urls")),
    # of allauth only what we use: nobody signs up, and an admin sets a forgotten password
    path("accounts/login/", account.login, name="account_login"),
    path("accounts/logout/", account.logout, name="account_logout"),
    path("accounts/inactive/", account.account_inactive, name="account_inactive"),
    path("accounts/reauthenticate/", account.reauthenticate, name="account_reauthenticate"),
    path("accounts/password/change/", account.password_change, name="account_change_password"),
    path("admin/login/", sign_in),
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url=f"{settings.STATIC_URL}icon.svg")),
    path("about/", about.about, name="about"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
    path("blocked/", refusals.content_blocked, name="content_blocked"),
]
