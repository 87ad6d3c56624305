"""Where the pages of runs and agents live."""

from django.urls import path

from runs.views import agents, dependencies, forks, operations, payloads, runs

urlpatterns = [
    path("runs/", runs.runs, name="runs"),
    path("runs/<int:run_id>/", runs.run, name="run"),
    path("runs/<int:run_id>/events/", runs.run_events, name="run_events"),
    path("runs/<int:run_id>/parts/<slug:name>/", runs.run_part, name="run_part"),
    path("runs/<int:run_id>/cancel/", runs.cancel_run, name="cancel_run"),
    path("runs/<int:run_id>/retry/", runs.retry_run, name="retry_run"),
    path("runs/<int:run_id>/payloads/<slug:hash_>/", payloads.run_payload, name="run_payload"),
    path("runs/<int:run_id>/steps/<int:position>/fork/", forks.fork_run, name="fork_run"),
    path("dependencies/", dependencies.dependency_list, name="dependencies"),
    path("dependencies/<slug:name>/", dependencies.dependency, name="dependency"),
    path("dependencies/<slug:name>/breaker/", dependencies.force_breaker, name="force_breaker"),
    path("dependencies/<slug:name>/enabled/", dependencies.switch_dependency, name="switch_dependency"),
    path("dependencies/<slug:name>/inbox/", dependencies.send_to_inbox, name="send_to_inbox"),
    path("operations/", operations.operations, name="operations"),
    path("agents/", agents.agents, name="agents"),
    path("agents/<slug:slug>/", agents.agent, name="agent"),
    path("agents/<slug:slug>/start/", agents.start_run, name="start_run"),
]
