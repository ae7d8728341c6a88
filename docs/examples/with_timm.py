"""timm's training loop, as clrsearch runs it: see docs/how-to/timm.md.

clrsearch run --task with_timm.py:main --epochs 8 --set metric=loss --set direction=minimize
"""

import timm
import torch
from PIL import Image, ImageDraw
from timm.data import create_loader, resolve_data_config
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, accuracy
from torch import nn
from torch.utils.data import Dataset

import clrsearch


class Shapes(Dataset):
    """Discs, squares and triangles of several colours and sizes, in place of your own images."""

    transform = None  # create_loader sets it

    def __init__(self, count, seed):
        self.count, self.seed = count, seed

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        draws = torch.Generator().manual_seed(self.seed + index)
        size, left, top, *colour = torch.randint(8, 16, (6,), generator=draws).tolist()
        image = Image.new("RGB", (32, 32))
        pen, paint = ImageDraw.Draw(image), tuple(16 * each for each in colour)
        box = (left, top, left + size, top + size)
        label = index % 3
        if label == 0:
            pen.ellipse(box, fill=paint)
        elif label == 1:
            pen.rectangle(box, fill=paint)
        else:
            pen.polygon([(left, box[3]), (box[2], box[3]), (left + size // 2, top)], fill=paint)
        return self.transform(image), label


def loaders(model):
    config = resolve_data_config({"img_size": 32}, model=model)
    how = {
        "input_size": config["input_size"],
        "mean": config["mean"],
        "std": config["std"],
        "batch_size": 16,
        "use_prefetcher": False,  # True on a GPU
        "num_workers": 0,
    }
    training = create_loader(Shapes(192, seed=0), is_training=True, **how)
    return training, create_loader(Shapes(96, seed=10_000), is_training=False, **how)


def main(run):
    model = timm.create_model("test_resnet", num_classes=3).to(run.device)
    loader, validation = loaders(model)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3, weight_decay=0.05)
    scheduler = run.scheduler(optimizer, steps_per_epoch=len(loader))
    run.checkpoint(model=model, optimizer=optimizer)

    for _ in run.epochs():
        train_one_epoch(model, loader, optimizer, scheduler, run.device)
        run.report(**validate(model, validation, run.device))


def train_one_epoch(model, loader, optimizer, scheduler, device):
    model.train()
    for images, target in loader:
        loss = nn.functional.cross_entropy(model(images.to(device)), target.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


@torch.no_grad()
def validate(model, loader, device):
    model.eval()
    losses, top1 = AverageMeter(), AverageMeter()
    for images, target in loader:
        output, target = model(images.to(device)), target.to(device)
        losses.update(nn.functional.cross_entropy(output, target).item(), len(target))
        top1.update(accuracy(output, target)[0].item(), len(target))
    return {"loss": losses.avg, "top1": top1.avg}


if __name__ == "__main__":
    clrsearch.dry_run(main, epochs=8)
