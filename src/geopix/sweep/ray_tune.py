"""Trials of a sweep on the machines of a Ray cluster, stopped early where they are behind.

Each Ray trial runs :func:`geopix.sweep.run.run`, as a local one does, in the same folder below the same working folder of its machine.
"""

from __future__ import annotations

import json
import logging
import os
import queue
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from geopix.sweep.folder import read_validations
from geopix.sweep.run import Job, result, run

_POLL = 2.0
_LONGEST = 100_000
_FACTOR = 3
Outcome = dict[str, Any]


class Fit(tune.Trainable):
    """One trial. A step lasts until the next validation, or a moment where there is none yet."""

    def setup(self, config: dict[str, Any], jobs: dict[str, Job], folder: str, metric: str | None) -> None:
        """Begin in the sweep's working folder, which is made on a machine that has none."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        self._job, self._metric = jobs[config["trial"]], metric
        self._stop, self._seen = Event(), 0
        self._outcome: Outcome = {}
        self._thread = Thread(target=self._run)
        self._thread.start()

    def step(self) -> dict[str, Any]:
        """The newest score, and the trial's outcome once it has one."""
        self._thread.join(_POLL)
        ended = not self._thread.is_alive()
        validations = read_validations(self._job.folder)
        said: dict[str, Any] = {"validations": self._seen, "score": float("nan")}
        if self._metric is not None and len(validations) > self._seen:
            scores = validations[self._seen]["metrics"]
            if self._metric not in scores:
                raise ValueError(f"--asha {self._metric} is no score of the validations; they have {', '.join(list(scores)[:12])}")
            self._seen += 1
            said = {"validations": self._seen, "score": scores[self._metric]}
        if not ended:
            return {
                **said,
                "outcome": json.dumps({**result(self._job), "state": "stopped", "measured": "last validation"}) if self._metric else "",
                "done": False,
            }
        return {**said, "outcome": json.dumps(self._outcome), "done": True}

    def cleanup(self) -> None:
        """Stop the training where it still runs; its folder can be resumed."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self._outcome = run(self._job, self._stop)


class _Ended(tune.Callback):
    """Hands on what a trial found when it ends: by itself, by the scheduler, or by an error of the cluster."""

    def __init__(self, found: queue.Queue[Outcome | None]) -> None:
        self._found = found

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray stores callbacks to restore an experiment, and a sweep goes on by its own files."""
        return {}

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any) -> None:
        """It ended, or was stopped early."""
        if trial.last_result.get("outcome"):
            self._found.put(json.loads(trial.last_result["outcome"]))

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any) -> None:
        """Its process ended without an answer."""
        error = trial.get_error()
        tail = [line for line in str(error).splitlines() if line.strip()][-6:]
        self._found.put({"name": trial.config["trial"], "state": "failed", "stage": "fit", "code": 1, "tail": tail, "log": f"Ray's log in {trial.local_path}"})


class _Interrupted(tune.Stopper):
    """Ends all trials when the sweep is interrupted, so that none trains on without it."""

    def __init__(self) -> None:
        self.event = Event()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for callbacks."""
        return {}

    def __call__(self, trial_id: str, result: Outcome) -> bool:
        """No trial ends for this alone."""
        return False

    def stop_all(self) -> bool:
        """Whether the sweep was interrupted."""
        return self.event.is_set()


def run_on_ray(jobs: Sequence[Job], address: str, *, asha: str | None, cpus: float, gpus: float | None, at_once: int | None) -> Iterator[Outcome]:
    """Run trials on a cluster, and give their results as they end.

    Args:
        address: of the cluster; ``auto`` for the one of this machine, ``local`` to start one.
        asha: validation score by which trials are stopped early.
        cpus: CPUs of a trial.
        gpus: GPUs of a trial; one where the cluster has any by default.
        at_once: trials at a time; as many as fit by default.

    Raises:
        ValueError: where there is no cluster, or none that a trial fits into.
    """
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}  # a trial's own folder says all
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # what it misses are the files of those loggers
    try:
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    except ConnectionError as error:
        raise ValueError(
            f"there is no Ray cluster at {address}\n  next      ray start --head here, then ray start --address HOST:PORT on others; or --ray local"
        ) from error
    has = ray.cluster_resources()
    gpus = gpus if gpus is not None else min(1.0, has.get("GPU", 0.0))
    if cpus > has.get("CPU", 0.0) or gpus > has.get("GPU", 0.0):
        ray.shutdown()
        raise ValueError(
            f"no trial fits into the cluster\n  found     {has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs\n  expected  {cpus:g} CPUs, {gpus:g} GPUs"
        )
    print(f"Ray: {len(ray.nodes())} machine(s), {has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs; a trial takes {cpus:g} and {gpus:g}", flush=True)
    found: queue.Queue[Outcome | None] = queue.Queue()
    stop = _Interrupted()
    thread = Thread(target=_tune, args=(_tuner(jobs, asha, cpus, gpus, at_once, [_Ended(found)], stop), found), daemon=True)
    thread.start()
    try:
        while (outcome := found.get()) is not None:
            yield outcome
    finally:
        stop.event.set()
        thread.join()
        ray.shutdown()


def _tuner(
    jobs: Sequence[Job], asha: str | None, cpus: float, gpus: float, at_once: int | None, callbacks: list[tune.Callback], stop: tune.Stopper
) -> tune.Tuner:
    by_name = {job.name: replace(job, threads=job.threads or max(1, int(cpus))) for job in jobs}
    mode = "min" if asha is not None and "loss" in asha else "max"
    early = ASHAScheduler(time_attr="validations", metric="score", mode=mode, max_t=_LONGEST, grace_period=1, reduction_factor=_FACTOR)
    fit = tune.with_resources(tune.with_parameters(Fit, jobs=by_name, folder=str(Path.cwd()), metric=asha), {"cpu": cpus, "gpu": gpus})
    return tune.Tuner(
        fit,
        param_space={"trial": tune.grid_search(list(by_name))},
        tune_config=tune.TuneConfig(scheduler=early if asha else FIFOScheduler(), max_concurrent_trials=at_once),
        run_config=tune.RunConfig(
            storage_path=str(jobs[0].folder.parent.resolve()),
            name=".ray",
            callbacks=callbacks,
            stop=stop,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial's folder holds its own
            verbose=0,
        ),
    )


def _tune(tuner: tune.Tuner, found: queue.Queue[Outcome | None]) -> None:
    try:
        tuner.fit()
    finally:
        found.put(None)
