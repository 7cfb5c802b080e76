"""The embedded default: a private PostgreSQL and Valkey for whoever sets no MAVEN_DATABASE_URL or MAVEN_REDIS_URL.

A *supervisor* process owns both servers. Commands say that they use them by holding a shared flock on HOME/lock; the
supervisor stops the servers a while after the last of them is gone, however it went.

Two locks make that safe, and both are released by the kernel alone, so a SIGKILL anywhere leaves nothing to repair:

HOME/lock           shared by every command that uses the servers. The supervisor decides to stop by taking it
                    exclusively, and then keeps it until it has exited: a command that comes at that moment waits, and
                    starts a new supervisor. One that came first keeps the servers alive.
HOME/servers.lock   exclusive, taken by the command that starts a supervisor, and inherited by the supervisor and by
                    every server process. So it is free only when nothing of an earlier generation is left, and two
                    generations never meet on one data directory.

Requests go over the socket ``control``. It listens before the supervisor exists (the starting command makes it and
hands it down), so nobody polls for readiness: a request waits in the socket until the supervisor answers it.
"""

from maven_cli.embedded.client import Servers, attach, is_running, run_foreground, stop
from maven_cli.embedded.home import default_home

__all__ = ["Servers", "attach", "default_home", "is_running", "run_foreground", "stop"]
