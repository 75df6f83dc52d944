"""A daemon with a part that refuses to stop before its deadline (or ever): python -m
tests.daemon.slow_daemon HOME SECS [deaf]."""

import sys
import threading

from pylon import config, identity
from pylon.daemon.daemon import Daemon
from pylon.daemon.detach import Report
from pylon.home import Home


class SlowDaemon(Daemon):

    secs = 0.0
    deaf = False

    def more_steps(self):
        return (self._start_slow,)

    def _start_slow(self):
        self.finished = threading.Event()
        self.add_part("slow", self._stop_slow, self.finished.set)

    def _stop_slow(self, deadline):
        (threading.Event() if self.deaf else self.finished).wait(self.secs)


def main(root, secs, *deaf):
    home = Home(root)
    SlowDaemon.secs, SlowDaemon.deaf = float(secs), bool(deaf)
    loaded = config.load(home)
    node = identity.load(home.identity)
    return SlowDaemon(home, loaded, node, foreground=True).serve(Report())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
