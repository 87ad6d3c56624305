"""What RQ executes, and the job process that executes it with its agents already loaded."""

import os
import socket

from rq import Worker

from runs import executor, sdk


def advance(run_id: int) -> None:
    """Carry the run as far as it can go."""
    executor.advance(run_id, owner=f"{socket.gethostname()}:{os.getpid()}")


class JobProcess(Worker):
    """RQ's own worker, which loads what the agents need once, before it forks for each job."""

    def work(self, *args: object, **kwargs: object) -> bool:
        for agent in sdk.agents():
            if agent.warm_up:
                agent.warm_up()
        return super().work(*args, **kwargs)  # type: ignore[arg-type]
