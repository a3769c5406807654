"""The process of a sandbox: takes limits upon itself, then runs `perceiver-run`. A script, so that no thread runs yet.

A process with threads can't leave its namespaces, and NumPy starts some.
"""

import ctypes
import json
import os
import resource
import sys

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, SIGKILL = 38, 1, 9
NETWORK = "sandbox: this system does not let a user take the network away from a process: it stays reachable"


def _limit(kind: int, most: int, grace: int = 0) -> None:
    """Lower a limit, the hard one to `grace` more; one that is lower already stays."""
    old = resource.getrlimit(kind)[1]
    soft, hard = (value if old == resource.RLIM_INFINITY else min(value, old) for value in (most, most + grace))
    resource.setrlimit(kind, (soft, hard))


def _without_network() -> bool:
    """Move to a new network namespace, which has no interfaces; answer whether the system let us."""
    if not hasattr(os, "getresuid"):
        return False
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) != 0:
        return False
    try:
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 - nothing but what is needed
                file.write(content)
    except OSError:
        pass  # without names for user and group
    return True


def main() -> int:
    """Run `perceiver-run`, with the limits of the first argument."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - nothing but what is needed
    sys.path[:1] = [path for path in sys.path[:1] if path != here]  # of a script; its modules would hide others
    limits = json.loads(sys.argv[1])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, limits["files"])
    _limit(resource.RLIMIT_CPU, int(limits["seconds"] * limits["cores"]) + 1, grace=1)
    _limit(resource.RLIMIT_AS, limits["memory"])
    if not _without_network():
        print(NETWORK, file=sys.stderr)

    from perceiver_runtime.cli.main import run_arguments

    return run_arguments(sys.argv[2:], sandboxed=True)


if __name__ == "__main__":
    sys.exit(main())
