"""Captions on hosts that share nothing but an object store: whatever is killed, stopped or cut off, the same corpus.

HOSTS_PICTURES, HOSTS_KILLS and HOSTS_SEED choose how much is done; what happened is printed (`pytest -s`).
"""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.corpus.table import Table
from pipeline.storage.files import location
from tests.conftest import clean_environment, command, make_photos
from tests.hosts import GATEWAY, end, network
from tests.loopback import FAULTS, Loopback
from tests.object_store import ObjectStore
from tests.pipeline.storage.test_corpora import table_bytes

needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="hosts need root and iproute2")
pytestmark = [pytest.mark.torture, pytest.mark.timeout(7_200), needs_root]
dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="Dask is not installed: leccr[dask]")

PICTURES = int(os.environ.get("HOSTS_PICTURES", 2_000))
KILLS = {"dask": 10, "job service": 5}
REQUESTS, SLOTS, WINDOW, LATENCY_S = 2 * PICTURES, 16, 16, 0.4
SERVER = {"host": GATEWAY, "slots": SLOTS, "latency_s": LATENCY_S, "sigma": 0.5, "fault_rate": 0.05}
SERVER["faults"] = tuple(fault for fault in FAULTS if fault != "stall")
SERVICE = {
    "dask": "distributed.cli.dask_scheduler --port 8786 --no-dashboard",
    "job service": "apache_beam.runners.portability.local_job_service_main --port 8099",
}
WORKER = {
    "dask": "distributed.cli.dask_worker tcp://driver:8786 --nthreads 2 --no-dashboard",
    "job service": "apache_beam.runners.worker.worker_pool_main --service_port 50000",
}
JOBS = "--runner PortableRunner --job_endpoint localhost:8099 --environment_type EXTERNAL --environment_config {}:50000"
OPTIONS = {"dask": "--runner DaskRunner --dask_client_address tcp://driver:8786", "job service": JOBS, "local": ""}
SILENCE = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "100s"}  # a worker that imports on a busy machine is silent too


class Cluster:
    """Hosts for a driver and two workers, and a store with pictures."""

    def __init__(self, hosts, store, folder):
        self.hosts, self.store, self.folder = hosts, store, folder
        self.log = (folder / "log.txt").open("ab")
        for path in make_photos(folder / "photos", PICTURES, (32, 32)):
            location(f"s3://corpora/photos/{path.name}").put(path.read_bytes())

    def arguments(self, server, corpus):
        inputs = ("--stage", "captions", "--input", "s3://corpora/photos", "--output", corpus, "--mllm-url", server.url)
        return command(*inputs, "--views", "short,objects", "--shard-size", PICTURES // 40, "--window", WINDOW)

    def start(self, host, *program):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return self.hosts[host].start(*program, log=self.log, PATH=path, **SILENCE, **self.store.environment)

    def start_worker(self, engine, host):
        return self.start(host, sys.executable, "-m", *WORKER[engine].split())

    def start_driver(self, engine, server, corpus, pool="one", host="driver"):
        return self.start(host, *self.arguments(server, corpus), *OPTIONS[engine].format(pool).split())

    @contextlib.contextmanager
    def workers(self, engine):
        """Workers by host."""
        service = self.start("driver", sys.executable, "-m", *SERVICE[engine].split())
        workers = {host: self.start_worker(engine, host) for host in ("one", "two")}
        time.sleep(15)
        yield workers
        for process in (service, *workers.values()):
            end(process)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    store = ObjectStore(folder / "weed", GATEWAY)
    store.folder.mkdir()
    with network(folder, "driver", "one", "two") as hosts, pytest.MonkeyPatch.context() as patch:
        store.start()
        for name, value in {**store.environment, "XDG_CACHE_HOME": str(folder / "cache")}.items():
            patch.setenv(name, value)
        yield Cluster(hosts, store, folder)
        store.stop()


@pytest.fixture(scope="module")
def reference(cluster):
    """The tables of an undisturbed local run."""
    with Loopback(host=GATEWAY) as server:
        subprocess.run(cluster.arguments(server, cluster.folder / "local"), env=clean_environment(), check=True)
    return table_bytes(cluster.folder / "local")


def wait_for_answers(server, more, driver):
    """Wait for so many more answers; returns whether the run then has work left."""
    goal = min(server.stats()["answered"] + more, REQUESTS * 0.95)
    while (answered := server.stats()["answered"]) < goal and driver.poll() is None:
        time.sleep(0.1)
    return answered < REQUESTS * 0.95 and driver.poll() is None


@pytest.mark.parametrize("engine", [pytest.param("dask", marks=dask), "job service"])
def test_killed_at_random_moments(cluster, reference, engine):
    """On as many corpora as it takes. Nothing is lost or doubled, and little is paid for twice."""
    generator, started = random.Random(os.environ.get("HOSTS_SEED")), time.monotonic()
    left = [("worker", "driver", "store")[number % 3] for number in range(KILLS[engine])]
    left = left[: int(os.environ.get("HOSTS_KILLS", len(left)))]
    generator.shuffle(left)
    while left:
        corpus, kills, pool = f"s3://corpora/{engine}-{len(left)}".replace(" ", "-"), [], "one"
        with Loopback(**SERVER) as server, cluster.workers(engine) as workers:
            driver = cluster.start_driver(engine, server, corpus)
            while left and wait_for_answers(server, generator.randrange(20, REQUESTS // 3), driver):
                kills.append(victim := left.pop())
                print(f"{time.monotonic() - started:.0f} s: {victim}, {server.stats()['answered']} answers", flush=True)
                if victim == "store":
                    cluster.store.stop()
                    time.sleep(20)
                    cluster.store.start()
                    time.sleep(10)  # for the answers that it has not got
                elif victim == "driver":
                    end(driver)
                    driver = cluster.start_driver(engine, server, corpus, pool)
                else:
                    host = generator.choice(["one", "two"]) if engine == "dask" else pool
                    end(workers[host])
                    workers[host] = cluster.start_worker(engine, host)
                    if engine == "job service" and driver.wait(900) == 4:  # its job was on that pool
                        pool = "two" if pool == "one" else "one"
                        driver = cluster.start_driver(engine, server, corpus, pool)
            assert driver.wait(3_600) == 0
            stats = server.stats()
            twice = sum(asked for asked, _ in stats["seen"].values()) - sum(stats["faults"].values()) - REQUESTS
            bound = (len(kills) - kills.count("store")) * (2 * WINDOW + 5 * SLOTS / LATENCY_S)
            print(f"{time.monotonic() - started:.0f} s: done, {twice} of at most {bound:.0f} paid twice", flush=True)
            assert 0 <= twice <= bound
        assert table_bytes(location(corpus)) == reference


@pytest.mark.parametrize("engine", [pytest.param("dask", marks=dask), "local"])
@pytest.mark.parametrize("how", ["stopped", "cut off"])
def test_what_comes_late_changes_nothing(cluster, engine, how):
    """A worker, or a whole run, goes on when others have made its shards. Every answer of the server differs."""
    corpus = location(f"s3://corpora/late-{engine}-{how[:3]}")

    def disturb(number, state):
        if how == "stopped":
            end(late, number)
        else:
            cluster.hosts["one"].link(state)

    with Loopback(**SERVER, unlike=True) as server, contextlib.ExitStack() as stack:
        if engine == "dask":
            late = stack.enter_context(cluster.workers(engine))["one"]
            driver = cluster.start_driver(engine, server, corpus)
        else:
            late = driver = cluster.start_driver(engine, server, corpus, host="one")
        assert wait_for_answers(server, REQUESTS // 3, driver)
        disturb(signal.SIGSTOP, "down")
        if engine == "local":
            driver = cluster.start_driver(engine, server, corpus, host="two")
        assert driver.wait(3_600) == 0
        before = table_bytes(corpus)
        disturb(signal.SIGCONT, "up")
        if engine == "local":
            assert late.wait(600) == 130
        else:
            time.sleep(60)
        assert table_bytes(corpus) == before
        rows = list(Table(corpus, "descriptions").rows())
        assert len(rows) == len({(row["item_id"], row["view"]) for row in rows}) == REQUESTS
