"""Tells an open inbox which review changed; the page asks for the rest, under its own permissions."""

import json
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth import get_user_model

from reviews.live import INBOX
from runs import access

SIGN_IN_AGAIN = 4403


class InboxConsumer(AsyncWebsocketConsumer):
    """One open inbox. It takes no commands: what a page sends is not read."""

    async def connect(self) -> None:
        if not await self._may_review():
            await self.close(SIGN_IN_AGAIN)
            return
        await self.channel_layer.group_add(INBOX, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(INBOX, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A page has nothing to say here."""

    async def changed(self, message: dict[str, Any]) -> None:
        """A nudge from reviews.live; whoever may no longer look is sent away."""
        if await self._may_review():
            await self.send(json.dumps({"changed": message["review"]}))
        else:
            await self.close(SIGN_IN_AGAIN)

    async def _may_review(self) -> bool:
        return bool(await database_sync_to_async(_may_review)(self.scope))


def _may_review(scope: dict[str, Any]) -> bool:
    """Asked anew each time: a permission or a session may be taken away while the page is open."""
    session, signed_in = scope.get("session"), scope.get("user")
    if signed_in is None or signed_in.pk is None or not session or not session.exists(session.session_key):
        return False
    user = get_user_model().objects.filter(pk=signed_in.pk).first()
    return user is not None and access.may_review(user)
