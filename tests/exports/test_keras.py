"""Keras 3: the schedule for every family, and fit() with rates and momenta."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported import (
    CYCLIC,
    FORMULAS,
    HORIZON,
    ONE_CYCLE,
    STEPS_PER_EPOCH,
    agree,
    executed,
    found,
    in_steps,
)

from clrsearch.errors import PlanError
from clrsearch.exports import write
from clrsearch.schedules import Cosine

IN_SINGLE_PRECISION = 1e-6
COSINE = Cosine(lr=0.3, horizon=HORIZON, warmup=12)
# what Keras does to a torch tensor, with NumPy 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras on torch, which takes seconds to import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))  # it writes there
        import keras

    return keras


@pytest.mark.parametrize("exported", [found, in_steps])
@pytest.mark.parametrize("schedule", FORMULAS, ids=repr)
def test_it_is_the_schedule_at_every_batch(schedule, exported, keras) -> None:
    exported = exported(schedule)
    names = executed(write("keras", exported))
    rate = names["FoundSchedule"]()
    steps = np.arange(HORIZON)
    value = keras.ops.convert_to_numpy(rate(keras.ops.convert_to_tensor(steps)))
    momenta = None
    if "momentum" in names:
        place = keras.ops.convert_to_tensor(steps.astype("float32"))
        momenta = keras.ops.convert_to_numpy(names["momentum"](place))
    agree(exported, np.broadcast_to(value, HORIZON), momenta, tolerance=IN_SINGLE_PRECISION)


@pytest.mark.parametrize("schedule", FORMULAS, ids=repr)
def test_it_stretches_with_the_batches(schedule, keras) -> None:
    for exported, length in ((found(schedule), STEPS_PER_EPOCH), (in_steps(schedule), HORIZON)):
        rate = executed(write("keras", exported))["FoundSchedule"](2 * length)
        steps = keras.ops.convert_to_tensor(2 * np.arange(HORIZON))
        rates = np.broadcast_to(keras.ops.convert_to_numpy(rate(steps)), HORIZON)
        agree(exported, rates, exported.trace.momenta, tolerance=IN_SINGLE_PRECISION)


FIT = """
import os, sys
import numpy as np
import keras

text, kind, adam = open(sys.argv[1]).read(), sys.argv[2], sys.argv[3] == "betas"
names = {"__name__": "schedule"}
exec(text, names)


class Noting(keras.callbacks.Callback):
    seen = []

    def on_train_batch_begin(self, batch, logs=None):
        optimizer = self.model.optimizer
        step = len(self.seen)
        rate = keras.ops.cast(optimizer._learning_rate(step), "float32")
        rate = float(keras.ops.convert_to_numpy(rate))
        self.seen.append((rate, optimizer.beta_1 if adam else optimizer.momentum))


rate = names["FoundSchedule"]()
optimizer = keras.optimizers.Adam(rate) if adam else keras.optimizers.SGD(rate, momentum=0.9)
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(optimizer, "mse", run_eagerly=kind == "eager")
own = [names["FoundMomentum"]()] if "FoundMomentum" in names else []
inputs = np.ones((14, 2), "float32")
model.fit(inputs, np.zeros((14, 1), "float32"), batch_size=2, epochs=12, verbose=0,
          callbacks=[*own, Noting()])
np.save(sys.argv[4], np.array(Noting.seen).T)
"""


def fit(text: str, folder: Path, *, backend: str, kind: str, momentum: str):
    """The rates and momenta of a whole fit() in a process of its own, with the given backend."""
    (folder / "schedule.txt").write_text(text)
    arguments = [str(folder / "schedule.txt"), kind, momentum, str(folder / "seen.npy")]
    done = subprocess.run(
        [sys.executable, "-c", FIT, *arguments],
        env={"KERAS_BACKEND": backend, "PATH": "", "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    return done, np.load(folder / "seen.npy") if done.returncode == 0 else None


@pytest.mark.parametrize(
    ("exported", "backend"),
    [
        (found(ONE_CYCLE, momentum="betas"), "torch"),
        (found(CYCLIC), "jax"),
        (in_steps(CYCLIC), "jax"),
        (found(COSINE), "jax"),
    ],
    ids=["onecycle, torch, Adam", "cyclic, jax", "cyclic in steps, jax", "cosine, jax"],
)
def test_fit_plays_the_schedule(exported, backend, tmp_path) -> None:
    momentum = exported.momentum
    kind = "eager" if exported.trace.momenta is not None and backend == "jax" else "compiled"
    text = write("keras", exported)
    done, seen = fit(text, tmp_path, backend=backend, kind=kind, momentum=momentum)
    assert seen is not None, done.stderr
    agree(exported, *seen, tolerance=IN_SINGLE_PRECISION)


def test_a_momentum_that_a_compiled_step_would_not_see_is_refused(tmp_path) -> None:
    text = write("keras", found(CYCLIC))
    done, _ = fit(text, tmp_path, backend="jax", kind="compiled", momentum="momentum")
    assert "FoundMomentum needs a model compiled with run_eagerly=True" in done.stderr


def test_the_weights_move_by_the_schedule(keras) -> None:
    exported = found(COSINE)
    optimizer = keras.optimizers.SGD(executed(write("keras", exported))["FoundSchedule"]())
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    rates = []
    for _ in range(HORIZON):
        weight.assign([0.0])
        optimizer.apply([keras.ops.ones(1)])
        rates.append(-float(keras.ops.convert_to_numpy(weight)[0]))
    agree(exported, rates, tolerance=IN_SINGLE_PRECISION)


def test_it_is_saved_and_loaded_with_the_optimizer(keras) -> None:
    rate = executed(write("keras", found(CYCLIC)))["FoundSchedule"](9)
    saved = keras.optimizers.serialize(keras.optimizers.SGD(rate, momentum=0.9))
    loaded = keras.optimizers.deserialize(saved)._learning_rate
    assert type(loaded) is type(rate)
    assert loaded.get_config() == {"steps_per_epoch": 9}
    assert float(loaded(10)) == float(rate(10))
    in_all = executed(write("keras", in_steps(CYCLIC)))["FoundSchedule"](90)
    assert in_all.get_config() == {"total_steps": 90}


def test_groups_with_rates_of_their_own_are_refused() -> None:
    with pytest.raises(PlanError, match=r"keras cannot .*different rates; --format torch can"):
        write("keras", found(CYCLIC, (1.0, 10.0)))


def test_groups_with_one_rate_are_one_schedule(keras) -> None:
    assert write("keras", found(CYCLIC, (1.0, 1.0))) == write("keras", found(CYCLIC))
