"""`python -m agentops.services status|stop`: tells about, or stops, this checkout's own servers."""

import sys

from agentops.services.failure import ServicesFailure
from agentops.services.places import local_directory
from agentops.services.sharing import MAKERS, Share


def main(arguments: list[str]) -> int:
    if arguments not in (["status"], ["stop"]):
        print("Say `python -m agentops.services status` or `python -m agentops.services stop`.", file=sys.stderr)
        return 2
    local = local_directory()
    if not local.exists():
        print(f"Nothing was started here yet: there is no {local}.")
        return 0
    return max([_carry_out(arguments[0], Share(make(local), local)) for make in MAKERS.values()])


def _carry_out(verb: str, share: Share) -> int:
    title = share.server.title
    if verb == "status":
        print(f"{title}: {f'answers at {share.server.url}' if share.server.answers() else 'does not run'}")
        return 0
    nobody_used_it = share.leave()
    print(f"{title}: {'stopped' if nobody_used_it else 'in use, so it stays: stop its users first (make run, a shell)'}")
    return 0 if nobody_used_it else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ServicesFailure as failure:
        sys.exit(f"agentops: {failure}")
