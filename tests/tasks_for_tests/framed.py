"""Loops of Lightning, of Hugging Face's Trainer and of Accelerate on Tiny's data.

An epoch has 4 steps, but for the options ``accumulate`` (the batches of a step) and ``batch_size``.
With ``plain`` nothing is random, so that a loop without any library can do the same; with ``still``
nothing but the model's weights and the order of the data.
"""

import math
import os
import signal
import tempfile
from pathlib import Path

import torch
from tiny import Tiny
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

RATES = []  # played at each step, and before it
STEPS = []  # taken by this process
SEEN = []  # what the libraries tell at each batch or step about where they are


def small(options):
    if options.get("plain"):
        torch.manual_seed(7)
    share = 0.0 if options.get("plain") or options.get("still") else 0.2
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(share), nn.Linear(8, 1), nn.Flatten(0))


def fatal(optimizer):
    """The optimizer, which kills its process once at the step in CLRSEARCH_TEST_FATAL_STEP.

    It leaves the file in CLRSEARCH_TEST_FATAL_FLAG.
    """
    flag = Path(os.environ.get("CLRSEARCH_TEST_FATAL_FLAG", "/"))
    step = os.environ.get("CLRSEARCH_TEST_FATAL_STEP")

    def count(*_):
        STEPS.append(1)
        if str(len(STEPS)) == step and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    optimizer.register_step_post_hook(count)
    return optimizer


def noisy(samples):
    """A batch with noise of its own, as masks and augmentations are."""
    batch = default_collate(samples)
    inputs = batch["inputs"] if isinstance(batch, dict) else batch[0]
    inputs += 0.1 * torch.randn_like(inputs)
    return batch


class Stream(IterableDataset):
    """A split so many times over, without a length."""

    def __init__(self, split, times):
        self.split = split
        self.times = times

    def __iter__(self):
        for _ in range(self.times):
            yield from (self.split[index] for index in range(len(self.split)))


def loader_of(train, options, generator=None):
    """The training batches of Lightning and Accelerate."""
    return DataLoader(
        Stream(train, options["stream"]) if options.get("stream") else train,
        batch_size=options.get("batch_size", 8),
        shuffle=not (options.get("plain") or options.get("stream")),
        drop_last=True,
        collate_fn=noisy if options.get("noise") else None,
        num_workers=options.get("workers", 0),
        generator=generator,
    )


def with_lightning(run):
    import lightning

    from clrsearch.frameworks.lightning import Reports, scheduled

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = small(run.options)

        def configure_optimizers(self):
            optimizer = fatal(torch.optim.SGD(self.parameters(), lr=0.0005, momentum=0.9))
            return scheduled(run, optimizer, self.trainer)

        def training_step(self, batch, index):
            RATES.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            SEEN.append((self.trainer.global_step, self.trainer.current_epoch, index))
            inputs, targets = batch
            return mse_loss(self.network(inputs), targets)

        def validation_step(self, batch, index):
            inputs, targets = batch
            self.log("val_error", mse_loss(self.network(inputs), targets))

    train, validation, _ = Tiny().data()
    options = run.options
    accumulate = options.get("accumulate", 1)
    length = {"max_epochs": run.total_epochs, "max_steps": run.total_steps or -1}
    if run.validate_every is not None:
        length["val_check_interval"] = run.validate_every * accumulate
        length["check_val_every_n_epoch"] = None
    trainer = lightning.Trainer(
        **length | options.get("trainer", {}),
        callbacks=[Reports(run)],
        accelerator=run.device.type,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=accumulate,
    )
    module = Module()
    trainer.fit(module, loader_of(train, options), DataLoader(validation, batch_size=12))
    trainer.validate(module, DataLoader(validation, batch_size=12), verbose=False)


class Named(Dataset):
    """A split as the Trainer takes it."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        inputs, targets = self.split[index]
        return {"inputs": inputs, "labels": targets}


class Network(nn.Module):
    """A network as the Trainer takes it."""

    def __init__(self, options):
        super().__init__()
        self.network = small(options)

    def forward(self, inputs, labels):
        output = self.network(inputs)
        return {"loss": mse_loss(output, labels), "logits": output}


def arguments_of(folder, options, **changes):
    """The Trainer's arguments, but for the length and the validations."""
    from transformers import TrainingArguments

    given = {
        "per_device_train_batch_size": options.get("batch_size", 8),
        "per_device_eval_batch_size": 2,
        "gradient_accumulation_steps": options.get("accumulate", 1),
        "dataloader_drop_last": True,
        "dataloader_num_workers": options.get("workers", 0),
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
    }
    if options.get("plain"):
        given |= {"train_sampling_strategy": "sequential", "max_grad_norm": 0}
    return TrainingArguments(folder, **given | changes)


def with_transformers(run):
    from transformers import Trainer, TrainerCallback

    from clrsearch.frameworks.transformers import Reports, scheduled

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer, **_):
            RATES.append(optimizer.param_groups[0]["lr"])
            SEEN.append((state.global_step,))

        def on_step_end(self, args, state, control, **_):
            SEEN.append((state.global_step, state.epoch))

    options = run.options
    train, validation, test = (Named(split) for split in Tiny().data())
    sets = {"near": validation, "far": test} if options.get("sets") else validation
    length = {"eval_strategy": "epoch"}
    if run.validate_every is not None:
        length = {"eval_strategy": "steps", "eval_steps": run.validate_every}
    if run.total_steps is None:
        length["num_train_epochs"] = run.total_epochs
    else:
        length["max_steps"] = run.total_steps
    model = Network(options)
    optimizer = fatal(torch.optim.SGD(model.parameters(), lr=0.0005, momentum=0.9))
    with tempfile.TemporaryDirectory() as folder:
        arguments = arguments_of(
            folder,
            options,
            **{"seed": run.seed, "use_cpu": run.device.type == "cpu"}
            | length
            | options.get("trainer", {}),
        )
        samples = () if options.get("stream") else (len(train),)
        trainer = Trainer(
            model,
            arguments,
            train_dataset=Stream(train, options["stream"]) if options.get("stream") else train,
            eval_dataset=sets,
            data_collator=noisy if options.get("noise") else default_collate,
            optimizers=scheduled(run, optimizer, arguments, *samples),
            callbacks=[Reports(run), Watch()],
        )
        trainer.train()
        trainer.evaluate(test)


def with_accelerate(run):
    """Its scheduler is prepared like the rest, and stepped with each batch like the optimizer."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    options = run.options
    accumulate = options.get("accumulate", 1)
    accelerator = Accelerator(
        cpu=run.device.type == "cpu",
        gradient_accumulation_steps=accumulate,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=run.seed),
    )
    train, validation, _ = Tiny().data()
    model = small(options)
    loader = loader_of(train, options, torch.Generator())  # each pass draws from it, if it has one
    raw = fatal(torch.optim.SGD(model.parameters(), lr=0.0005, momentum=0.9))
    model, optimizer, loader = accelerator.prepare(model, raw, loader)
    steps = math.ceil(len(loader) / accumulate)
    length = {"steps_per_epoch": steps} if run.total_epochs else {"total_steps": run.total_steps}
    scheduler = run.scheduler(raw if options.get("raw") else optimizer, **length)
    if not options.get("unprepared"):
        scheduler = accelerator.prepare(scheduler)
    run.checkpoint(model=model, optimizer=optimizer)

    def learn(batch):
        with accelerator.accumulate(model):
            RATES.append(raw.param_groups[0]["lr"])
            inputs, targets = batch
            accelerator.backward(mse_loss(model(inputs), targets))
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()

    batches = None
    for interval in run.intervals():
        model.train()
        if batches is None:
            passes, step = divmod(interval.start, steps)
            batches = batches_from(loader, passes, step * accumulate)
        for _ in interval:
            learn(next(batches))
            while not accelerator.sync_gradients:
                learn(next(batches))
        model.eval()
        with torch.no_grad():
            error = mse_loss(model(validation.tensors[0]), validation.tensors[1])
        run.report(error=error)


def batches_from(loader, passes, batch):
    """The batches of a prepared loader from a pass over the data and a batch of it on."""
    from accelerate import skip_first_batches

    while True:
        rest = skip_first_batches(loader, batch)
        rest.set_epoch(passes)
        yield from rest
        passes, batch = passes + 1, 0
