"""Captions on hosts that share nothing but an object store: whatever is killed, stopped or cut off, the same corpus."""

import contextlib
import hashlib
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
from tests.end_to_end.test_resume import table_bytes
from tests.hosts import GATEWAY, end, network
from tests.loopback import FAULTS, Loopback
from tests.object_store import ObjectStore

pytestmark = [
    pytest.mark.torture,
    pytest.mark.timeout(5_400),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2, to make hosts"),
]
dask_installed = importlib.util.find_spec("distributed") is not None
needs_dask = pytest.mark.skipif(not dask_installed, reason="Dask is not installed: leccr[dask]")

PICTURES = int(os.environ.get("HOSTS_PICTURES", 2_000))
KILLS = {"dask": int(os.environ.get("HOSTS_DASK_KILLS", 10)), "job service": int(os.environ.get("HOSTS_JOB_KILLS", 5))}
VIEWS, SLOTS, WINDOW, LATENCY_S = 2, 16, 16, float(os.environ.get("HOSTS_LATENCY_S", 0.4))
SERVER = {
    "host": GATEWAY,
    "slots": SLOTS,
    "latency_s": LATENCY_S,
    "sigma": 0.5,
    "fault_rate": 0.05,
    "faults": tuple(fault for fault in FAULTS if fault != "stall"),
}
AWAY_S, LEASE_S, SILENCE_S = 20, 30, 100  # a worker is silent while it imports, on a busy machine
OPTIONS = {
    "dask": ("--runner", "DaskRunner", "--dask_client_address", "tcp://driver:8786"),
    "job service": ("--runner", "PortableRunner", "--job_endpoint", "localhost:8099", "--environment_type", "EXTERNAL"),
    "local": (),
}


class Cluster:
    """A driver's host with the scheduler or the job service, two hosts for workers, a store and pictures in it."""

    def __init__(self, hosts, store, folder):
        self.hosts, self.store, self.folder = hosts, store, folder
        self.log = (folder / "log.txt").open("ab")
        self.num_corpora = 0
        for path in make_photos(folder / "photos", PICTURES, (32, 32)):
            location(f"s3://corpora/photos/{path.name}").put(path.read_bytes())

    def new_corpus(self):
        self.num_corpora += 1
        return f"s3://corpora/corpus-{self.num_corpora}"

    def arguments(self, server, corpus, *options):
        inputs = ("--stage", "captions", "--input", "s3://corpora/photos", "--output", corpus)
        inputs += ("--views", "short,objects", "--mllm-url", server.url)
        return command(*inputs, "--shard-size", 50, "--window", WINDOW, *options)

    def start(self, host, *arguments, **environment):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return self.hosts[host].start(*arguments, log=self.log, PATH=path, **self.store.environment, **environment)

    def start_worker(self, engine, host):
        if engine == "dask":
            program = ("distributed.cli.dask_worker", "tcp://driver:8786", "--nthreads", 2, "--no-dashboard")
        else:
            program = ("apache_beam.runners.worker.worker_pool_main", "--service_port", 50_000)
        return self.start(host, sys.executable, "-m", *program)

    def start_driver(self, engine, host, server, corpus, worker="one"):
        pool = ("--environment_config", f"{worker}:50000") if engine == "job service" else ()
        return self.start(host, *self.arguments(server, corpus, *OPTIONS[engine], *pool))

    @contextlib.contextmanager
    def engine(self, engine):
        """Its workers, by host. Dask gives the shards of a silent worker to another one."""
        if engine == "dask":
            program = ("distributed.cli.dask_scheduler", "--port", 8786, "--no-dashboard")
        else:
            program = ("apache_beam.runners.portability.local_job_service_main", "--port", 8099)
        patience = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{SILENCE_S}s"}
        service = self.start("driver", sys.executable, "-m", *program, **patience)
        workers = {host: self.start_worker(engine, host) for host in ("one", "two")}
        time.sleep(15)
        yield workers
        for process in (service, *workers.values()):
            end(process)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(network(folder, "driver", "one", "two"))
        (folder / "weed").mkdir()
        store = ObjectStore(folder / "weed", GATEWAY)
        store.start()
        stack.callback(lambda: store.stop())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**store.environment, "XDG_CACHE_HOME": str(folder / "cache")}.items():
            patch.setenv(name, value)
        yield Cluster(hosts, store, folder)


@pytest.fixture(scope="module")
def reference(cluster):
    """The tables of an undisturbed local run."""
    with Loopback(**SERVER, seed=1) as server:
        server.script(latency_s=0.01, fault_rate=0.0)
        subprocess.run(cluster.arguments(server, cluster.folder / "local"), env=clean_environment(), check=True)
    return table_bytes(cluster.folder / "local")


def tables_in_store(corpus):
    paths = [path for table in ("items", "captions", "descriptions") for path in (location(corpus) / table).iterdir()]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


def checksums(corpus):
    """Of everything that counts: what runs keep for themselves is not among it."""
    paths = [path for path in location(corpus).rglob("*") if not {"answers", "run"} & set(path.parts)]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def wait_for_answers(server, number, *processes, seconds=900):
    """Wait until the server has answered so often, or a process has ended."""
    deadline = time.monotonic() + seconds
    while server.stats()["answered"] < number and all(process.poll() is None for process in processes):
        assert time.monotonic() < deadline, f"{server.stats()['answered']} of {number} answers"
        time.sleep(0.1)


def paid_twice(server):
    """Requests that were asked again although they had not failed, whether they had been answered or were in flight."""
    stats = server.stats()
    return sum(asked for asked, _ in stats["seen"].values()) - sum(stats["faults"].values()) - PICTURES * VIEWS


@pytest.mark.parametrize("engine", [pytest.param("dask", marks=needs_dask), "job service"])
def test_killed_at_random_moments(cluster, reference, engine):
    """Workers, drivers and the store are killed and started again, on as many corpora as it takes."""
    generator = random.Random(os.environ.get("HOSTS_SEED", "kills"))
    left = [("worker", "driver", "store")[number % 3] for number in range(KILLS[engine])]
    generator.shuffle(left)
    while left:
        corpus, kills = cluster.new_corpus(), []
        with Loopback(**SERVER, seed=2) as server, cluster.engine(engine) as workers:
            started, host = time.monotonic(), "one"
            driver = cluster.start_driver(engine, "driver", server, corpus, host)
            goal = 0
            while left and driver.poll() is None:
                goal = server.stats()["answered"] + generator.randrange(20, PICTURES * VIEWS // 3)
                wait_for_answers(server, goal, driver)
                time.sleep(generator.uniform(0, 3))
                if driver.poll() is not None or server.stats()["answered"] >= PICTURES * VIEWS * 0.95:
                    break  # it would come too late
                kills.append(victim := left.pop())
                print(f"{time.monotonic() - started:.0f} s, {server.stats()['answered']} answers: {victim}", flush=True)
                if victim == "store":
                    cluster.store.stop()
                    time.sleep(AWAY_S)
                    cluster.store.start()
                    time.sleep(10)  # answers are put into it again
                elif victim == "driver":
                    end(driver)
                    driver = cluster.start_driver(engine, "driver", server, corpus, host)
                else:
                    host = generator.choice(["one", "two"]) if engine == "dask" else host
                    end(workers[host])
                    workers[host] = cluster.start_worker(engine, host)
                    if engine == "job service":  # it waits for that worker until it is told that it is gone
                        assert driver.wait(600) == 4
                        host = "two" if host == "one" else "one"
                        driver = cluster.start_driver(engine, "driver", server, corpus, host)
            assert driver.wait(1_800) == 0
            twice, bound = paid_twice(server), 0
            for victim in kills:
                bound += 0 if victim == "store" else 2 * WINDOW + SLOTS / LATENCY_S * 5
            print(f"{time.monotonic() - started:.0f} s: done, {kills}, {twice} paid twice of {bound:.0f}", flush=True)
            assert 0 <= twice <= bound
        assert tables_in_store(corpus) == reference


@pytest.mark.parametrize("engine", [pytest.param("dask", marks=needs_dask), "local"])
@pytest.mark.parametrize("how", ["stopped", "cut off"])
def test_what_comes_late_changes_nothing(cluster, engine, how):
    """A worker, or a whole run, is stopped or cut off until others have made its shards, and goes on after that."""
    corpus = cluster.new_corpus()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Loopback(**SERVER, unlike=True, seed=3))
        if engine == "dask":
            late = stack.enter_context(cluster.engine(engine))["one"]
            driver = cluster.start_driver(engine, "driver", server, corpus)
        else:
            late = driver = cluster.start_driver(engine, "one", server, corpus)
        wait_for_answers(server, PICTURES * VIEWS // 3, driver)
        assert driver.poll() is None
        if how == "stopped":
            end(late, signal.SIGSTOP)
        else:
            cluster.hosts["one"].link("down")
        if engine == "local":
            driver = cluster.start_driver(engine, "two", server, corpus)
        began = time.monotonic()
        assert driver.wait(1_800) == 0
        assert time.monotonic() - began > LEASE_S
        before = checksums(corpus)
        if how == "stopped":
            end(late, signal.SIGCONT)
        else:
            cluster.hosts["one"].link("up")
        if engine == "local":
            assert late.wait(300) == 130
        else:
            time.sleep(60)
        assert checksums(corpus) == before
    rows = list(Table(location(corpus), "descriptions").rows())
    assert len(rows) == len({(row["item_id"], row["view"]) for row in rows}) == PICTURES * VIEWS
    assert len({row["text"] for row in rows}) == len(rows)
