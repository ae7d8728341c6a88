"""Optax: schedules of its own where they say the same, a closed form otherwise."""

from __future__ import annotations

from types import SimpleNamespace

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

from clrsearch.exports import write
from clrsearch.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Step,
    WarmupStableDecay,
)


@pytest.fixture(scope="module")
def jax():
    """JAX and Optax, which take seconds to import."""
    import jax
    import optax

    return SimpleNamespace(
        jit=jax.jit, vmap=jax.vmap, numpy=jax.numpy, enable_x64=jax.enable_x64, optax=optax
    )


@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-12), (False, 1e-6)])
@pytest.mark.parametrize("schedule", FORMULAS, ids=repr)
def test_it_is_the_schedule_at_every_update(schedule, double, tolerance, jax) -> None:
    for exported in (found(schedule), in_steps(schedule)):
        names = executed(write("optax", exported))
        with jax.enable_x64(double):
            updates = jax.numpy.arange(HORIZON)
            rates = np.broadcast_to(names["make_schedule"]()(updates), HORIZON)
            momenta = names["momentum"](updates) if "momentum" in names else None
        agree(exported, rates, momenta, tolerance=tolerance)


@pytest.mark.parametrize(
    "schedule",
    [
        CYCLIC,
        ONE_CYCLE,
        Constant(lr=0.3),
        Cosine(lr=0.3, horizon=HORIZON, warmup=12),
        WarmupStableDecay(lr=0.3, horizon=HORIZON, decay=20, shape="1-sqrt"),
    ],
    ids=repr,
)
def test_it_can_be_compiled(schedule, jax) -> None:
    exported = found(schedule)
    rate = jax.jit(executed(write("optax", exported))["make_schedule"]())
    rates = [float(rate(update)) for update in range(HORIZON)]
    agree(exported, rates, exported.trace.momenta, tolerance=1e-6)


@pytest.mark.parametrize(
    ("schedule", "native"),
    [
        (Constant(lr=0.3), "rate = optax.constant_schedule(0.3)"),
        (Linear(lr=0.3, horizon=84), "rate = optax.linear_schedule(0.3, 0.0, 84)"),
        (
            Cosine(lr=0.3, horizon=84, eta_min=0.03),
            "cosine_decay_schedule(0.3, 84, alpha=0.1)",
        ),
        (Polynomial(lr=0.3, horizon=84, power=2.0), "optax.polynomial_schedule(0.3, 0.0, 2.0, 84)"),
        (Exponential(lr=0.3, gamma=0.5), "optax.exponential_decay(0.3, 84, "),
        (
            Step(lr=0.5, step_size=42, gamma=0.5),
            "piecewise_constant_schedule(0.5, {42: 0.5})",
        ),
        (
            MultiStep(lr=0.5, milestones=(20,), gamma=0.5),
            "piecewise_constant_schedule(0.5, {20: 0.5})",
        ),
        (Cosine(lr=0.3, horizon=84, warmup=2), "boundaries=[2],"),
        (CosineRestarts(lr=0.3, horizon=84, cycles=2), "boundaries=[42],"),
        (WarmupStableDecay(lr=0.3, horizon=84, decay=20), "boundaries=[64],"),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value),
)
def test_its_own_schedules_are_used(schedule, native) -> None:
    text = write("optax", found(schedule))
    assert native in text
    assert "jnp" not in text


@pytest.mark.parametrize(
    "schedule",
    [
        CYCLIC,
        OneCycle(max_lr=0.3, horizon=84, pct_start=0.3, div_factor=25.0, final_div_factor=1e4),
        Linear(lr=0.3, horizon=84, warmup=2.5),
        WarmupStableDecay(lr=0.3, horizon=84, decay=20, shape="1-sqrt"),
    ],
    ids=repr,
)
def test_what_it_has_not_is_a_closed_form(schedule) -> None:
    assert "def rate(step):" in write("optax", found(schedule))


@pytest.mark.parametrize(
    ("momentum", "factory", "name"), [("momentum", "sgd", "momentum"), ("betas", "adam", "b1")]
)
@pytest.mark.parametrize("exported", [found, in_steps])
@pytest.mark.parametrize("schedule", [CYCLIC, ONE_CYCLE], ids=["cyclic", "onecycle"])
def test_an_optimizer_follows_rates_and_momenta(
    schedule, exported, momentum, factory, name, jax
) -> None:
    length = STEPS_PER_EPOCH if exported is found else HORIZON
    exported = exported(schedule, momentum=momentum)
    names = executed(write("optax", exported))
    others = {"nesterov": True} if factory == "sgd" else {}
    optimizer = names["make_optimizer"](getattr(jax.optax, factory), length, **others)
    weights = jax.numpy.ones(2)
    state = optimizer.init(weights)
    update = jax.jit(optimizer.update)
    rates, momenta = [], []
    for _ in range(HORIZON):
        _, state = update(weights, state, weights)
        rates.append(float(state.hyperparams["learning_rate"]))
        momenta.append(float(state.hyperparams[name]))
    agree(exported, rates, momenta, tolerance=1e-6)


def test_the_updates_of_the_weights_are_those_of_the_schedule(jax) -> None:
    exported = found(Cosine(lr=0.3, horizon=HORIZON, warmup=12))
    optimizer = jax.optax.sgd(executed(write("optax", exported))["make_schedule"]())
    weights = jax.numpy.ones(1)
    state = optimizer.init(weights)
    update = jax.jit(optimizer.update)
    rates = []
    for _ in range(HORIZON):
        change, state = update(weights, state, weights)
        rates.append(-float(change[0]))
    agree(exported, rates, tolerance=1e-6)


def test_groups_have_a_schedule_each(jax) -> None:
    exported = found(CYCLIC, (1.0, 10.0, 0.3))
    names = executed(write("optax", exported))
    assert names["RATIOS"] == {"group0": 1.0, "group1": 10.0, "group2": 0.3}
    with jax.enable_x64(True):
        updates = jax.numpy.arange(HORIZON)
        rates = [names["make_schedule"](ratio=each)(updates) for each in names["RATIOS"].values()]
        momenta = [names["momentum"](updates)] * 3
    agree(exported, rates, momenta)


def test_groups_are_trained_with_a_rate_each(jax) -> None:
    exported = found(Cosine(lr=0.3, horizon=HORIZON), (1.0, 10.0))
    names = executed(write("optax", exported))
    optimizers = {
        group: jax.optax.sgd(names["make_schedule"](STEPS_PER_EPOCH, ratio))
        for group, ratio in names["RATIOS"].items()
    }
    weights = {group: jax.numpy.ones(1) for group in optimizers}
    optimizer = jax.optax.partition(optimizers, {group: group for group in optimizers})
    state = optimizer.init(weights)
    update = jax.jit(optimizer.update)
    rates = []
    for _ in range(HORIZON):
        change, state = update(weights, state, weights)
        rates.append([-float(change[group][0]) for group in optimizers])
    agree(exported, list(zip(*rates, strict=True)), tolerance=1e-6)


@pytest.mark.parametrize("schedule", FORMULAS, ids=repr)
def test_it_stretches_with_the_updates(schedule, jax) -> None:
    for exported, length in ((found(schedule), STEPS_PER_EPOCH), (in_steps(schedule), HORIZON)):
        stretched = executed(write("optax", exported))["make_schedule"](2 * length)
        with jax.enable_x64(True):
            rates = np.broadcast_to(stretched(2 * jax.numpy.arange(HORIZON)), HORIZON)
        agree(exported, rates, exported.trace.momenta)
