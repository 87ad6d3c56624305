"""A large value of a run, as a file: pages name only its size."""

import json
from collections.abc import AsyncIterator

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from runs import access, event_log
from runs.views.runs import found_run

SLICE_LETTERS = 1_000_000  # the database counts letters from the first for each: smaller ones cost it more
LONGEST_ESCAPE = 6  # of JSON: \u001f


@require_GET
@access.permits(access.may_look)
@never_cache
def run_payload(request: HttpRequest, run_id: int, hash_: str) -> StreamingHttpResponse:
    """Plain text where the value is one text, else JSON; never shown by the browser itself, because it is untrusted."""
    if not access.sees_payloads(request.user, run_id):
        raise PermissionDenied
    head = event_log.payload_slice(found_run(run_id).pk, hash_, 1, SLICE_LETTERS)
    if head is None:
        raise Http404(f"Run {run_id} has no such payload.")
    is_text, slices = head.startswith('"'), _slices(run_id, hash_, head)
    kind, ending = ("text/plain; charset=utf-8", "txt") if is_text else ("application/json", "json")
    answer = StreamingHttpResponse(_unquoted(slices) if is_text else slices, content_type=kind)
    answer["Content-Disposition"] = f'attachment; filename="run-{run_id}-{hash_[:12]}.{ending}"'
    return answer


async def _slices(run_id: int, hash_: str, part: str) -> AsyncIterator[str]:
    """One after the other from the database. Asynchronous, because the server would collect all of a synchronous iterator."""
    place, following = 1, sync_to_async(event_log.payload_slice)
    while part:
        yield part
        place += SLICE_LETTERS
        part = (await following(run_id, hash_, place, SLICE_LETTERS) or "") if len(part) == SLICE_LETTERS else ""


async def _unquoted(slices: AsyncIterator[str]) -> AsyncIterator[str]:
    """The text that a JSON string is, from its parts."""
    left = ""
    async for part in slices:
        text = left + part if left else part.removeprefix('"')
        end = _whole_up_to(text)
        yield json.loads(f'"{text[:end]}"')
        left = text[end:]


def _whole_up_to(text: str) -> int:
    """Where it can be cut: before the last letter, which may be the closing quote, and not within an escape."""
    end = max(0, len(text) - 1)
    begun = text.rfind("\\", max(0, end - LONGEST_ESCAPE), end)
    if begun < 0 or (begun - len(text[:begun].rstrip("\\"))) % 2:  # none, or itself escaped
        return end
    length = LONGEST_ESCAPE if text[begun + 1] == "u" else 2
    return begun if begun + length > end else end
