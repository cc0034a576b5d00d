"""Hosts on one machine that share nothing but a network, for tests of clusters. Needs root.

A host has its own network, name, shared memory, and /tmp with an empty home; all other files, such as Python and the
package, are there to read only. They see one another by name, and this machine, as `gateway`.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, clean_environment

NETWORK = os.getpid() % 250  # of this test process
BRIDGE, SUBNET = f"leccr{NETWORK}", f"10.213.{NETWORK}"
GATEWAY = f"{SUBNET}.1"
MOUNTS = """
set -e
hostname $NAME
ip link set lo up
mount -t tmpfs tmpfs /mnt
mkdir /mnt/home
cp $HOSTS /mnt/hosts
mount --bind /mnt/hosts /etc/hosts
for folder in $FOLDERS; do
    mkdir -p /mnt/${folder#/tmp/}
    mount --bind $folder /mnt/${folder#/tmp/}
    mount -o remount,bind,ro /mnt/${folder#/tmp/}
done
mount --move /mnt /tmp
mount -t tmpfs tmpfs /dev/shm
mount -o remount,bind,ro /
echo ready
exec cat  # until the test ends
"""


def run(*command):
    subprocess.run(list(map(str, command)), check=True)


class Host:
    """One of them. `start` runs a program there, `link` cuts it off and connects it again."""

    def __init__(self, name, number, hosts_file):
        self.name, self.address, self._cable = name, f"{SUBNET}.{number}", f"{BRIDGE}-{number}"
        self._programs = []
        folders = {folder for folder in map(str, (ROOT, Path(sys.prefix))) if folder.startswith("/tmp/")}
        self._anchor = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--propagation", "private", "sh", "-c", MOUNTS],
            env={**os.environ, "NAME": name, "HOSTS": str(hosts_file), "FOLDERS": " ".join(folders)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._anchor.stdout.readline() == b"ready\n"
        inside = ("nsenter", "-t", self._anchor.pid, "-n", "ip")
        run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._anchor.pid)
        run("ip", "link", "set", self._cable, "master", BRIDGE, "up")
        run(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")

    def start(self, *command, log=subprocess.DEVNULL, **environment):
        """A process in a process group of its own, in the folder of the package."""
        process = subprocess.Popen(
            ["nsenter", "-t", str(self._anchor.pid), "-n", "-m", "-u", f"--wdns={ROOT}", *map(str, command)],
            env=clean_environment(HOME="/tmp/home", TMPDIR="/tmp", PYTHONPATH=str(ROOT), **environment),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self._programs.append(process)
        return process

    def link(self, state):
        """Pull the cable ("down"), or put it back ("up")."""
        run("ip", "link", "set", self._cable, state)

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
    addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(names, start=2)}
    lines = [
        f"{address} {name}" for name, address in {"localhost": "127.0.0.1", "gateway": GATEWAY, **addresses}.items()
    ]
    (folder / "hosts").write_text("\n".join(lines) + "\n")
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    with contextlib.ExitStack() as stack:
        stack.callback(run, "ip", "link", "delete", BRIDGE)
        run("ip", "address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        hosts = {}
        for number, name in enumerate(names, start=2):
            hosts[name] = Host(name, number, folder / "hosts")
            stack.callback(hosts[name].close)
        yield hosts
