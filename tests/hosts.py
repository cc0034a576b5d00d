"""Hosts on one machine that share nothing but a network, for tests of clusters. Needs root.

A host has its own network, name, shared memory, and /tmp with an empty home; all other files, such as Python and the
package, are there to read only. Hosts know one another by name. The test's own process is at GATEWAY.
"""

import contextlib
import os
import signal
import subprocess
import sys

from tests.conftest import ROOT, clean_environment

NETWORK = os.getpid() % 250  # of this test process
BRIDGE, SUBNET = f"leccr{NETWORK}", f"10.213.{NETWORK}"
GATEWAY = f"{SUBNET}.1"


def run(command):
    subprocess.run(command.split(), check=True)


class Host:
    """One of them. `start` runs a program there, `link` cuts it off and connects it again."""

    def __init__(self, name, number, names):
        self._cable, self._programs = f"{BRIDGE}-{number}", []
        folders = " ".join({str(path) for path in (ROOT, sys.prefix) if str(path).startswith("/tmp/")})
        self._anchor = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--propagation", "private", "sh", ROOT / "tests" / "host.sh"],
            env={**os.environ, "NAME": name, "HOSTS": str(names), "FOLDERS": folders},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._anchor.stdout.readline() == b"ready\n"
        inside = f"nsenter -t {self._anchor.pid} -n ip"
        run(f"ip link add {self._cable} type veth peer name eth0 netns {self._anchor.pid}")
        run(f"ip link set {self._cable} master {BRIDGE} up")
        run(f"{inside} address add {SUBNET}.{number}/24 dev eth0")
        run(f"{inside} link set eth0 up")

    def start(self, *command, log, **environment):
        """A process in a process group of its own, in the folder of the package."""
        inside = ("nsenter", "-t", str(self._anchor.pid), "-n", "-m", "-u", f"--wdns={ROOT}")
        environment = clean_environment(HOME="/tmp/home", TMPDIR="/tmp", PYTHONPATH=str(ROOT), **environment)
        process = subprocess.Popen(
            [*inside, *map(str, command)], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        self._programs.append(process)
        return process

    def link(self, state):
        """Pull the cable ("down"), or put it back ("up")."""
        run(f"ip link set {self._cable} {state}")

    def close(self):
        for process in self._programs:
            end(process)
        self._anchor.communicate()


def end(process, number=signal.SIGKILL):
    """Send a signal to a program and all that it has started; wait for its end if that is to kill it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    if number == signal.SIGKILL:
        process.wait()


@contextlib.contextmanager
def network(folder, *names):
    """Hosts of these names, by name."""
    numbers = {name: number for number, name in enumerate(names, start=2)}
    lines = ["127.0.0.1 localhost", *(f"{SUBNET}.{number} {name}" for name, number in numbers.items())]
    (folder / "hosts").write_text("".join(f"{line}\n" for line in lines))
    with contextlib.ExitStack() as stack:
        run(f"ip link add {BRIDGE} type bridge")
        stack.callback(run, f"ip link delete {BRIDGE}")
        run(f"ip address add {GATEWAY}/24 dev {BRIDGE}")
        run(f"ip link set {BRIDGE} up")
        hosts = {}
        for name, number in numbers.items():
            hosts[name] = Host(name, number, folder / "hosts")
            stack.callback(hosts[name].close)
        yield hosts
