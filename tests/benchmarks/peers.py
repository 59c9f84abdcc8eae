"""The peers' environment, and processes for the contenders."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import contenders
from skfocal.datasets import _data_home

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "peers-requirements.txt"
# No contender may use the network, or write logs while another one is timed.
QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "WANDB_MODE": "disabled",
}


class ContenderError(RuntimeError):
    """A contender failed to carry out a command."""


def peers_python(folder=None):
    """Return the interpreter of the peers' environment, which is created at first use."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    folder = Path(folder) if folder else _data_home(None) / "peers"
    python, mark = folder / "bin" / "python", folder / "skfocal-peers"
    if mark.exists() and mark.read_text() == wanted:
        return python
    print(f"Installing {REQUIREMENTS.name} into {folder}, once.", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)]
    subprocess.run(install, check=True)
    mark.write_text(wanted)
    return python


def launch(script, peer, peers_env=None):
    """Return the command and the environment in which a contender's script runs.

    Parameters
    ----------
    script : module
    peer : bool
        Whether it runs in the peers' environment. Peers must not find this checkout; -P keeps this
        folder's own modules away, too.
    peers_env : path or None
        Folder of the peers' environment.
    """
    python = peers_python(peers_env).absolute() if peer else sys.executable
    environment = {k: v for k, v in os.environ.items() if not (peer and k == "PYTHONPATH")}
    return [str(python), "-P", script.__file__], environment | QUIET


class Process:
    """A contender in its own process; it is idle between commands.

    Parameters
    ----------
    name : str
        One of the script's CONTENDERS.
    settings : dict
        Those of contenders.Contender, and threads.
    folder : path
        Working folder, for the files that it writes.
    peers_env : path or None
        Folder of the peers' environment.
    script : module, default=contenders
        What the process runs.
    """

    def __init__(self, name, settings, folder, peers_env=None, script=contenders):
        self.name = name
        command, environment = launch(script, script.CONTENDERS[name].peer, peers_env)
        if settings["threads"]:
            threads = str(settings["threads"])
            environment |= {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
        folder = Path(folder, name.replace(" ", "-"))
        folder.mkdir()
        self.log = folder / "stderr"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env=environment,
            )
        ready = self._ask(settings)
        self.versions, self.threads = ready["versions"], ready["threads"]

    def _ask(self, message):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        reply = json.loads(line) if line else {"error": "the process ended"}
        if "error" in reply:
            tail = "\n".join(self.log.read_text().splitlines()[-15:])
            raise ContenderError(f"{self.name}: {reply['error']}\n{tail}")
        return reply

    def fit(self, texts, labels, seed):
        """Train; return seconds, memory and load."""
        labels = [x if isinstance(x, list) else str(x) for x in labels]
        command = {"do": "fit", "texts": list(texts), "labels": labels}
        return self._ask(command | {"seed": seed})

    def predict(self, texts, precision=None):
        """Return the labels, and seconds, memory and load."""
        reply = self._ask({"do": "predict", "texts": list(texts), "precision": precision})
        return reply.pop("labels"), reply

    def answers(self, texts):
        """Return a dict with the classes, and the probabilities or the codes that it predicts."""
        return self._ask({"do": "answer", "texts": list(texts)})

    def close(self):
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def start(name, settings, folder, peers_env=None, script=contenders):
    """Return a :class:`Process` with the torch and transformers of this interpreter."""
    process = Process(name, settings, folder, peers_env, script)
    ours = contenders.versions()
    for package in ("torch", "transformers"):
        theirs = process.versions[package]
        if theirs.split("+")[0] != ours[package].split("+")[0]:
            process.close()
            raise SystemExit(
                f"{name} has {package} {theirs} and skfocal {ours[package]}: not comparable. "
                "constraints.txt and peers-requirements.txt must name the same versions."
            )
    return process
