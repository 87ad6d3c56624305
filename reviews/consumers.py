"""Tells an open inbox which reviews changed; the page asks for the rest, under its own permissions."""

import json
from typing import Any

from runs import access, live
from runs.consumers import Watcher


class InboxConsumer(Watcher):
    """One open inbox. A burst of changes becomes one message: the numbers of the reviews, with what is said of each."""

    question = staticmethod(access.may_review)

    def group(self) -> str:
        self.reviews: dict[str, str] = {}
        return live.INBOX

    async def changed(self, message: dict[str, Any]) -> None:
        self.reviews = live.joined(self.reviews, message["reviews"])
        await super().changed(message)

    async def read(self, rung: bool) -> None:
        if not self.reviews:
            return
        named, self.reviews = self.reviews, {}
        await self.send(text_data=json.dumps({"changed": named}))
