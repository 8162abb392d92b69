"""Train a student on Ray Train: workers, checkpoints, and resuming a stopped run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from salip_ray.cluster.resources import Machine
from salip_ray.cluster.session import ray_session
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import JobError
from salip_ray.output.claim import as_json
from salip_ray.output.layout import STUDENT_CHECKPOINTS, STUDENT_HISTORY, STUDENT_WEIGHTS
from salip_ray.output.lease import Lease, require_owner
from salip_ray.output.store import Store
from salip_ray.student.options import StudentOptions
from salip_ray.student.output import claimed_training
from salip_ray.wording import counted

_STATE = "course.pt"
_FAILURES = 3  # of workers or nodes, before a run ends


def train_student(
    labels: PseudoLabels,
    output: str,
    options: StudentOptions,
    *,
    storage_options: Mapping[str, Any] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Store:
    """Train a student on pseudo-labels, or resume its training; return the output.

    Uses the Ray cluster that this process is connected to, else the one at ``RAY_ADDRESS``, else
    starts Ray on this machine. Every worker must see the output and the images.

    Args:
        labels: the labels, without a transform.
        output: an empty or new location, or that of the same training, to resume it.
        options: options of the training.
        storage_options: fsspec options of the output.
        report: called with progress messages.

    Raises:
        ConfigError: the images cannot be split with these options.
        OutputError: the output holds something else, (ResumeError) another training, or
            (LeaseError) is written by another process.
        ResourceError: Ray could not be started.
        JobError: the training failed.
    """
    store = Store(output, storage_options)
    parts = _parts(labels, options)
    with claimed_training(store, parts, options) as claim:
        if store.read(STUDENT_WEIGHTS) is not None:
            report(f"{store} is complete: the student is trained")
            return store
        images, workers = counted(len(parts["train"]), "image"), counted(options.workers, "worker")
        report(f"training on {images} with {workers}")
        with ray_session(lambda _machine: options.workers + 1) as machine:
            state = _fit(parts, store, options, machine, claim.lease)
        student = _student_of(state, labels, options)
        claim.lease.require_owner()
        store.write(STUDENT_HISTORY, as_json(state["history"]))
        store.write(STUDENT_WEIGHTS, student.to_bytes())
    return store


def _parts(labels: PseudoLabels, options: StudentOptions) -> dict[str, PseudoLabels]:
    if not options.val_share:
        return {"train": labels}
    shares = {"train": 1 - options.val_share, "val": options.val_share}
    return labels.split(shares, seed=options.seed, group_by=options.group_by)


def _fit(
    parts: Mapping[str, PseudoLabels],
    store: Store,
    options: StudentOptions,
    machine: Machine,
    lease: Lease,
) -> dict[str, Any]:
    """Return the state of the run after the last epoch."""
    import torch
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    path, filesystem = store.for_ray()
    gpus = machine.gpus >= options.workers
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={
            "parts": dict(parts),
            "options": options,
            "output": store,
            "owner": lease.owner,
            "threads": max(1, machine.cores // options.workers),
        },
        scaling_config=ScalingConfig(num_workers=options.workers, use_gpu=gpus),
        run_config=RunConfig(
            name=STUDENT_CHECKPOINTS,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        lease.require_owner()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise JobError(
            f"the training failed: {lines[-1] if lines else type(error).__name__}. "
            "Run the same command again to resume after the last complete epoch"
        ) from error
    assert result.checkpoint is not None, "every epoch writes a checkpoint"
    with result.checkpoint.as_directory() as folder:
        state: dict[str, Any] = torch.load(Path(folder, _STATE), weights_only=True)
    return state


def _train_worker(config: Mapping[str, Any]) -> None:
    """Run the training loop in one worker."""
    import ray.train
    import ray.train.torch
    import torch
    from torch.utils.data import DataLoader

    from salip_ray.student.loop import Total, TrainingRun
    from salip_ray.student.network import build
    from salip_ray.student.samples import Examples, MixedOrder

    options: StudentOptions = config["options"]
    parts: Mapping[str, PseudoLabels] = config["parts"]
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(config["threads"])
    torch.manual_seed(options.seed)  # the same weights on every worker
    device = ray.train.torch.get_device()
    net = build(options, len(parts["train"].class_ids), pretrained=True)
    loaders, orders = {}, {}
    for part, labels in parts.items():
        examples = Examples(labels, options.size, augment=part == "train", seed=options.seed)
        shards = [entry.shard for entry in labels.entries]
        orders[part] = MixedOrder(shards, seed=options.seed, rank=rank, workers=workers)
        loaders[part] = DataLoader(
            examples,
            batch_size=options.batch_size,
            sampler=orders[part],
            num_workers=options.loaders,
            multiprocessing_context="spawn" if options.loaders else None,
        )
    run = TrainingRun(ray.train.torch.prepare_model(net), options, device)
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            run.load_state(torch.load(Path(folder, _STATE), map_location=device, weights_only=True))

    def over_workers(total: Total) -> Total:
        if workers == 1:
            return total
        both = torch.tensor([total.sum, total.count], dtype=torch.float64, device=device)
        torch.distributed.all_reduce(both)
        return Total(*both.tolist())

    while run.epochs_done < options.epochs:
        for part, loader in loaders.items():
            orders[part].epoch = run.epochs_done
            loader.dataset.epoch = run.epochs_done  # type: ignore[attr-defined]
        loss = over_workers(run.learn(loaders["train"]))
        val = over_workers(run.validate(loaders["val"])) if "val" in loaders else Total()
        figures = run.close_epoch(loss, val)
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if rank == 0:
                require_owner(config["output"], config["owner"])
                torch.save(run.state(), Path(folder, _STATE))
                saved = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(figures, checkpoint=saved)


def _student_of(state: Mapping[str, Any], labels: PseudoLabels, options: StudentOptions) -> Any:
    from salip_ray.student.network import Student, build

    net = build(options, len(labels.class_ids))
    net.load_state_dict(state["best"])
    return Student(net.eval(), labels.class_ids, options.size, options.width, options.network)
