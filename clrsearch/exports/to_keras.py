"""For Keras 3: a LearningRateSchedule, and a callback for the momentum."""

from __future__ import annotations

from clrsearch.exports.formula import curves_of, function, uses_math
from clrsearch.exports.found import Found
from clrsearch.schedules import opening

RATE_SAYS = "The learning rate after so many batches of the search."
MOMENTUM_SAYS = "The momentum after so many batches of the search."

SCHEDULE = '''

@keras.saving.register_keras_serializable(package="clrsearch")
class FoundSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule over {span}, batch by batch.

    Found with {optimizer}.

        optimizer = keras.optimizers.{example}
    """

    def __init__(self, {argument}={constant}):
        self.{argument} = {argument}

    def __call__(self, step):
        stretch = self.{stretch}
        return rate(ops.cast(step, "float32") / stretch)

    def get_config(self):
        return {{"{argument}": self.{argument}}}
'''

CALLBACK = '''

class FoundMomentum(keras.callbacks.Callback):
    """Sets the optimizer's {attribute} before each batch: fit(..., callbacks=[FoundMomentum(n)]).

    A compiled step keeps the value that it began with: except with the torch backend, the model
    must be compiled with run_eagerly=True. steps_per_execution stays 1.
    """

    def __init__(self, {argument}={constant}):
        super().__init__()
        self.stretch = {argument} / {constant}

    def on_train_begin(self, logs=None):
        if keras.backend.backend() != "torch" and not self.model.run_eagerly:
            raise ValueError("FoundMomentum needs a model compiled with run_eagerly=True")
        self.step = int(ops.convert_to_numpy(self.model.optimizer.iterations))

    def on_train_batch_begin(self, batch, logs=None):
        value = momentum(ops.convert_to_tensor(self.step / self.stretch, "float32"))
        self.model.optimizer.{attribute} = float(ops.convert_to_numpy(value))
        self.step += 1
'''


def write(found: Found) -> str:
    """A file with a class ``FoundSchedule``, and ``FoundMomentum`` if the schedule has momenta.

    A Keras optimizer has one rate for all weights.

    Raises:
        PlanError: the parameter groups have different rates, or the rates come from a user's
            function.
        ScheduleError: the formula does not reproduce the schedule.
    """
    if not found.one_rate:
        raise found.cannot("keras", "its parameter groups have different rates")
    curves, file = curves_of(found, "keras"), found.file
    functions = [function("rate", RATE_SAYS, curves.rate, "ops")]
    if curves.momentum is not None:
        functions.append(function("momentum", MOMENTUM_SAYS, curves.momentum, "ops"))
    body = "\n\n\n".join(functions)
    maths = ("import math", "") if uses_math(body) else ()
    adam = found.momentum == "betas"
    made = f"FoundSchedule({'batches_per_epoch' if file.total_steps is None else 'total_steps'})"
    momentum = ", momentum=0.9" if found.momentum == "momentum" else ""
    example = f"Adam({made})" if adam else f"SGD({made}{momentum})"
    text = "\n".join(
        [*opening(file, [*maths, "import keras", "from keras import ops"]), "", "", body, ""]
    )
    length = {"argument": file.argument, "constant": file.argument.upper()}
    text += SCHEDULE.format(
        optimizer=file.optimizer, example=example, span=file.span, stretch=file.stretch, **length
    )
    if curves.momentum is not None:
        text += CALLBACK.format(attribute="beta_1" if adam else "momentum", **length)
    return text
