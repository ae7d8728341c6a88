"""Loops of Lightning and of Hugging Face's Trainer, on Tiny's data: 4 epochs of 4 steps."""

import tempfile

import torch
from tiny import Tiny
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

RATES = []  # played at each step, and before it


def small():
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1), nn.Flatten(0))


def with_lightning(run):
    import lightning

    from clrsearch.frameworks.lightning import Reports, scheduled

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = small()

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.0005, momentum=0.9)
            return scheduled(run, optimizer, self.trainer)

        def training_step(self, batch, index):
            RATES.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            inputs, targets = batch
            return mse_loss(self.network(inputs), targets)

        def validation_step(self, batch, index):
            inputs, targets = batch
            self.log("val_error", mse_loss(self.network(inputs), targets))

    train, validation, _ = Tiny().data()
    trainer = lightning.Trainer(
        max_epochs=run.options.get("max_epochs", run.total_epochs),
        max_steps=run.options.get("max_steps", -1),
        callbacks=[Reports(run)],
        accelerator=run.device.type,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=run.options.get("accumulate", 1),
    )
    trainer.fit(
        Module(),
        DataLoader(train, batch_size=8, shuffle=True, drop_last=True),
        DataLoader(validation, batch_size=12),
    )


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

    def __init__(self):
        super().__init__()
        self.network = small()

    def forward(self, inputs, labels):
        output = self.network(inputs)
        return {"loss": mse_loss(output, labels), "logits": output}


def with_transformers(run):
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from clrsearch.frameworks.transformers import Reports, scheduled

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer, **_):
            RATES.append(optimizer.param_groups[0]["lr"])

    train, validation, test = (Named(split) for split in Tiny().data())
    sets = {"near": validation, "far": test} if run.options.get("sets") else validation
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0005, momentum=0.9)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=run.total_epochs,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=run.options.get("accumulate", 1),
            dataloader_drop_last=True,
            eval_strategy=run.options.get("evaluate", "epoch"),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=run.device.type == "cpu",
            seed=run.options.get("seed", run.seed),
            log_level="error",
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=train,
            eval_dataset=sets,
            optimizers=scheduled(run, optimizer, arguments, len(train)),
            callbacks=[Reports(run), Watch()],
        )
        trainer.train()
        trainer.evaluate(test)
