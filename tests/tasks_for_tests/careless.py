"""Tasks that break the contract, each in one of the ways in which people do."""

import torch
from tiny import Incomplete, Listed, Tiny
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from clrsearch import Splits


class Dicts(Listed):
    """Samples as Hugging Face's datasets have them."""

    def __getitem__(self, index):
        inputs, target = self.split[index]
        return {"pixels": inputs, "label": target}


class DictBatches(Tiny):
    def data(self):
        return Splits(*(Dicts(split) for split in super().data()))


class Nested(Listed):
    """Samples whose input has two parts."""

    def __getitem__(self, index):
        inputs, target = self.split[index]
        return {"left": inputs[:2], "right": inputs[2:]}, target


class NestedInputs(Tiny):
    def data(self):
        return Splits(*(Nested(split) for split in super().data()))


class Uncollated(Listed):
    """Samples that are no tensors."""

    def __getitem__(self, index):
        return None, self.split[index][1]


class NoTensors(Tiny):
    def data(self):
        return Splits(*(Uncollated(split) for split in super().data()))


class ThreeTensors(Tiny):
    def data(self):
        return Splits(
            *(TensorDataset(*split.tensors, split.tensors[1]) for split in super().data())
        )


class NoValidation(Tiny):
    def data(self):
        train, validation, test = super().data()
        return Splits(train, TensorDataset(*validation[:0]), test)


class NoTestSplit(Tiny):
    def data(self):
        train, validation, _ = super().data()
        return Splits(train, validation, None)


class NoTraining(Tiny):
    def data(self):
        train, validation, test = super().data()
        return Splits(TensorDataset(*train[:0]), validation, test)


class TwoSplits(Tiny):
    def data(self):
        return super().data()[:2]


class NoData(Tiny):
    def data(self):
        super().data()


class DictOfSplits(Tiny):
    def data(self):
        return super().data()._asdict()


class Loaders(Tiny):
    def data(self):
        return Splits(*(DataLoader(split, batch_size=8) for split in super().data()))


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(4), torch.zeros(())


class Streams(Tiny):
    def data(self):
        return Splits(Endless(), *super().data()[1:])


class NoModel(Tiny):
    def model(self):
        super().model()


class ModelClass(Tiny):
    def model(self):
        return nn.Linear


class OptimizerClass(Tiny):
    def optimizer(self, model):
        return torch.optim.SGD


class Scheduler(Tiny):
    def optimizer(self, model):
        return torch.optim.lr_scheduler.CosineAnnealingLR(super().optimizer(model), 4)


class Scheduled(Tiny):
    def optimizer(self, model):
        optimizer = super().optimizer(model)
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=16)
        return optimizer


class OptimizerAndScheduler(Tiny):
    def optimizer(self, model):
        optimizer = super().optimizer(model)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)


class NegativeRate(Tiny):
    def optimizer(self, model):
        groups = [{"params": [weight]} for weight in model.parameters()]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        optimizer.param_groups[1]["lr"] = float("nan")
        return optimizer


class Closure(Tiny):
    def optimizer(self, model):
        return torch.optim.LBFGS(model.parameters())


class OtherModel(Tiny):
    """Its optimizer is one of another instance: nothing is ever trained."""

    def optimizer(self, model):
        return super().optimizer(self.model())


class SomeUnused(Tiny):
    """A few parameters that are not used are no mistake."""

    def model(self):
        model = super().model()
        model.register_parameter("spare", nn.Parameter(torch.zeros(3)))
        return model


class FloatLoss(Tiny):
    def loss(self, output, target):
        return mse_loss(output, target).item()


class LossPerSample(Tiny):
    def loss(self, output, target):
        return mse_loss(output, target, reduction="none")


class DetachedLoss(Tiny):
    def loss(self, output, target):
        return mse_loss(output, target).detach()


class Frozen(Tiny):
    def model(self):
        return super().model().requires_grad_(False)


class NoLoss(Tiny):
    def loss(self, output, target):
        mse_loss(output, target)


class NoMeasure(Tiny):
    def measure(self, output, target):
        super().measure(output, target)


class MeasureList(Tiny):
    def measure(self, output, target):
        return [mse_loss(output, target)]


class MeasureNone(Tiny):
    def measure(self, output, target):
        return {"error": None}


class MeasureByNumber(Tiny):
    def measure(self, output, target):
        return {0: mse_loss(output, target, reduction="sum")}


class NumberAsText(Tiny):
    def measure(self, output, target):
        return {"error": "0.5"}


class NoEvaluation(Tiny):
    def evaluate(self, outputs, targets):
        print("largest", (outputs - targets).abs().max())


class EvaluateText(Tiny):
    def evaluate(self, outputs, targets):
        return {"largest": "2.5"}


class EvaluatePerSample(Tiny):
    def evaluate(self, outputs, targets):
        return {"largest": (outputs - targets).abs()}


class NoAugmentation(Tiny):
    def augment(self, inputs):
        inputs += torch.randn_like(inputs)


class AugmentPair(Tiny):
    def augment(self, inputs):
        return inputs, None


class Silent(nn.Linear):
    def forward(self, inputs):
        super().forward(inputs)


class NoOutput(Tiny):
    def model(self):
        return Silent(4, 1)


class TwoHeads(nn.Linear):
    def forward(self, inputs):
        output = super().forward(inputs).flatten()
        return output, output


class EvaluatesTwo(Tiny):
    """Two outputs, and an evaluation, for which they cannot be put together."""

    def model(self):
        return TwoHeads(4, 1)

    def loss(self, output, target):
        return mse_loss(output[0], target)

    def measure(self, output, target):
        return super().measure(output[0], target)

    def evaluate(self, outputs, targets):
        return {}


class Vanishing(Tiny):
    """Measures nothing any more from its second epoch on."""

    def model(self):
        self.measured = 0
        return super().model()

    def measure(self, output, target):
        self.measured += 1
        return super().measure(output, target) if self.measured < 2 else {"loss": output.sum()}


class Growing(Tiny):
    """Has one group more at each call."""

    groups = 0

    def optimizer(self, model):
        Growing.groups += 1
        weights = list(model.parameters())
        groups = [{"params": weights}, *({"params": []} for _ in range(Growing.groups))]
        return torch.optim.SGD(groups, lr=0.02, momentum=0.9)


class NoMethods(Incomplete):
    metric = "error"
    direction = "minimize"

    def data(self):
        return None


class MetricList(Tiny):
    metric = ("error",)


class Misfit(Tiny):
    """Its model does not take the inputs."""

    def model(self):
        return nn.Linear(7, 1)
