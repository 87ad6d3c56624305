"""Tells an open inbox that a review changed; the page asks for the rest, under its own permissions."""

import json
from typing import Any

from runs import access, live
from runs.consumers import Watcher


class InboxConsumer(Watcher):
    """One open inbox. A burst of changes becomes one message: which review changed last."""

    question = staticmethod(access.may_review)
    pause_seconds = 0.5
    last_review: int | None = None

    def group(self) -> str:
        return live.INBOX

    async def changed(self, message: dict[str, Any]) -> None:
        self.last_review = message["review"]
        await super().changed(message)

    async def read(self, rung: bool) -> None:
        if rung and self.last_review:
            await self.send(text_data=json.dumps({"changed": self.last_review}))
