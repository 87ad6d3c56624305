"""A large value of a run, as a file: pages name only its size."""

import json

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from runs import access, event_log
from runs.views.runs import found_run


@require_GET
@access.permits(access.may_look)
@never_cache
def run_payload(request: HttpRequest, run_id: int, hash_: str) -> HttpResponse:
    """Plain text where the value is one text, else JSON; never shown by the browser itself, because it is untrusted."""
    body = event_log.payload(found_run(run_id).pk, hash_)
    if body is None:
        raise Http404(f"Run {run_id} has no such payload.")
    is_text = body.startswith('"')
    kind, ending = ("text/plain; charset=utf-8", "txt") if is_text else ("application/json", "json")
    answer = HttpResponse(json.loads(body) if is_text else body, content_type=kind)
    answer["Content-Disposition"] = f'attachment; filename="run-{run_id}-{hash_[:12]}.{ending}"'
    return answer
