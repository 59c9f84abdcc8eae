"""Clusters of two machines, played by processes that share no folder."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from sklearn.metrics import log_loss

from skfocal import cache_info

HERE = Path(__file__).parent
PATHS = os.pathsep.join(map(str, (HERE.parent, HERE)))


def environment(folder):
    """Return what makes processes a machine of their own: a folder for temporary files."""
    folder.mkdir()
    return {"TMPDIR": str(folder), "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def two_ray_nodes(folder):
    """Yield joblib's settings for Ray on two nodes of one processor each."""
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.joblib import register_ray

    register_ray()
    # Of the devices it is told of Ray gives numbers, whether there are any or not.
    options = {
        "num_cpus": 1,
        "num_gpus": 1,
        "include_dashboard": False,
        "object_store_memory": 200_000_000,
    }
    cluster = Cluster()
    try:
        for name in ("a", "b"):
            cluster.add_node(env_vars=environment(folder / name), **options)
        ray.init(address=cluster.address, log_to_driver=False)
        yield {"backend": "ray", "ray_remote_args": {"num_cpus": 1, "num_gpus": 1}}
    finally:
        ray.shutdown()
        cluster.shutdown()


@contextlib.contextmanager
def two_dask_nodes(folder):
    """Yield joblib's settings for Dask with two worker processes of one thread each."""
    from distributed import Client

    with contextlib.ExitStack() as stack:
        file = folder / "scheduler.json"
        started = [start("scheduler", folder, "s", "--scheduler-file", file, "--port", "0")]
        options = ["--scheduler-file", file, "--nthreads", "1", "--no-dashboard"]
        for name in ("a", "b"):
            started.append(start("worker", folder, name, *options))
        for process in started:
            stack.callback(end, process)
        client = stack.enter_context(Client(scheduler_file=str(file), timeout=60))
        client.wait_for_workers(2, timeout=60)
        yield {"backend": "dask"}
        client.shutdown()


def start(kind, folder, name, *options):
    env = {**os.environ, **environment(folder / name), "CUDA_VISIBLE_DEVICES": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_" + kind, *map(str, options)],
        env=env,
        cwd=folder / name,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def end(process):
    process.terminate()
    process.wait(30)


@contextlib.contextmanager
def weighed_tasks():
    """Yield a list to which the bytes of each task that joblib sends are added."""
    import cloudpickle
    import distributed
    import ray
    from ray.util.multiprocessing.pool import Pool

    sizes = []
    submit, run_batch = distributed.Client.submit, Pool._run_batch

    def dask_submit(client, func, *args, **kwargs):
        sizes.append(len(cloudpickle.dumps((func, args, kwargs))))
        return submit(client, func, *args, **kwargs)

    def ray_run_batch(pool, actor, func, batch):
        context = ray._private.worker.global_worker.get_serialization_context()
        sizes.append(context.serialize((func, batch)).total_bytes)
        return run_batch(pool, actor, func, batch)

    distributed.Client.submit, Pool._run_batch = dask_submit, ray_run_batch
    try:
        yield sizes
    finally:
        distributed.Client.submit, Pool._run_batch = submit, run_batch


def score_and_tell(clf, X, y):
    """Return the log-likelihood; leave in the node's own folder what its process has done."""
    with Path(tempfile.gettempdir(), "told.jsonl").open("a") as file:
        device = os.environ.get("CUDA_VISIBLE_DEVICES")
        file.write(json.dumps({"pid": os.getpid(), "device": device, **cache_info()}) + "\n")
    return -log_loss(y, clf.predict_proba(X), labels=clf.classes_)


def told(folder):
    """Return what the processes of each node told: of each the last line."""
    nodes = {}
    for path in folder.glob("*/told.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        nodes[path.parent.name] = list({line.pop("pid"): line for line in lines}.values())
    return nodes


TWO_NODES = {"ray": two_ray_nodes, "dask": two_dask_nodes}
