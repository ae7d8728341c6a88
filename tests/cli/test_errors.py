"""Bad input: one clear line on stderr that names what to change, exit code 2, nothing written."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture
def refused(clrsearch, monkeypatch, url, task_dir):
    """Run a command in the folder of the tests' tasks; it must be refused and write nothing."""
    monkeypatch.chdir(task_dir)

    def run(*arguments: str) -> str:
        code, out, errors = clrsearch(*arguments)
        assert code == 2
        assert out == ""
        assert not url.file.exists()
        return errors

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "missing.toml"], "no such study file: missing.toml"),
        (["run", "--trials", "0"], "trials: input should be greater than or equal to 1, not 0"),
        (["run", "--workers", "0"], "workers must be at least 1, not 0"),
        (["run", "--epochs", "3"], "cyclic does not fit: a cycle takes at least 4 epochs"),
        (["run", "--set", "trails=3"], "unknown key trails; did you mean trials"),
        (
            ["run", "--set", "bounds.cyclic.max_lr=[1,2"],
            "=[1,2: not valid TOML",
        ),
        (["run", "--set", "trials"], "--set trials: KEY=VALUE is wanted"),
        (["run", "--set", 'families=["cyklic"]'], "no family 'cyklic'; did you mean cyclic"),
        (
            ["run", "--set", "bounds.cyclic.max_lr=[1, 0.1]"],
            "bounds.cyclic.max_lr: the lower end 1",
        ),
        (["run", "--set", "bounds.cyclic.mode=sine"], "bounds.cyclic.mode: 'sine' is none of"),
        (["run", "--set", 'families=["manual"]'], "manual does not fit: no rates are given"),
        (["run", "--set", "manual=[[20, 0.1]]"], "manual is not among the families"),
        (
            ["compare", "--set", "manual=[[5, 0.1], [10, 0.01]]"],
            "manual does not fit: epochs 15 to 20 have no rate: the pieces cover 15 of 20",
        ),
        (
            ["compare", "--set", "manual=[[[0, 15], 0.1], [[10, 20], 0.01]]"],
            "piece 2 begins at epoch 10 and overlaps the one before it, which ends at 15",
        ),
        (
            ["compare", "--set", "manual=[[5, 0.1, 3]]"],
            "manual: [[5, 0.1, 3]] is neither a list of [EPOCHS, RATE] nor",
        ),
        (["compare", "--set", "manual=7"], "manual: 7 is neither a list of [EPOCHS, RATE] nor"),
        (["compare", "--set", "manual=tiny.py"], "tiny.py: a function is written"),
        (["compare", "--set", "manual=tiny.py:nothing"], "tiny.py has no function nothing"),
        (["compare", "--set", "manual=none.py:rate"], "no such file: "),
        (
            ["compare", "--set", "manual=tiny.py:negative_later"],
            "tiny.py:negative_later must give a positive number, not -0.1 as at step 310",
        ),
        (
            ["run", "--set", "groups.head=2.0"],
            "groups.head: the optimizer has no such group; there is only 0",
        ),
        (
            ["run", "--task", "tiny.py:Headed", "--set", "groups.haed=2.0"],
            "groups.haed: the optimizer has no such group; did you mean head?",
        ),
        (
            ["run", "--task", "tiny.py:Headed", "--set", "groups.body=2.0"],
            "groups.body: the first group's rate is the schedule's own",
        ),
        (
            ["run", "--task", "tiny.py:Headed", "--set", "groups.head=[2.0, 0.5]"],
            "groups.head: the lower end 2.0 is above the upper end 0.5",
        ),
        (
            ["run", "--task", "tiny.py:Headed", "--set", "groups.head=0"],
            "groups.head: must be positive",
        ),
        (
            ["run", "--task", "tiny.py:Headed", "--set", "groups.head=fast"],
            "groups: 'fast' is neither a number nor the two ends of a range",
        ),
        (
            ["run", "--set", "options.optimizer=lion"],
            "options.optimizer: Input should be 'nesterov'",
        ),
        (
            ["run", "--task", "digitz"],
            "no built-in task digitz (there is digits, cifar10, cifar100, mnist, ",
        ),
        (["run", "--task", "nothere.py:Mine"], "no such file: "),
        (["run", "--task", "no.such.module:Mine"], "no module no.such.module can be imported"),
        (["run", "--task", "tiny.py:Tinny"], "tiny.py has no Tinny; its tasks: Tiny, "),
        (["run", "--task", "tiny.py:NanMetric"], "metric error of the untrained model is nan"),
        (["run", "--task", "tiny.py:TextMetric"], "measure(): error is the str 'good', and"),
        (["run", "--task", "tiny.py:OtherMetric"], "the task measures no 'accuracy'"),
        (["run", "--set", "metric=speed", "--task", "tiny.py:Tiny"], "measures no 'speed'"),
        (["run", "--device", "tpu9"], "the device 'tpu9' cannot be used"),
        (["run", "--storage", "studies.db"], "not a database URL: write sqlite:///FILE"),
        (["run", "--storage", "sqlite:////no/such/folder/s.db"], "the folder /no/such/folder of"),
        (["best", "digits"], "no studies at sqlite:///"),
        (["worker", "digits"], "no studies at sqlite:///"),
    ],
)
def test_one_line_names_what_to_change(arguments, message, refused) -> None:
    errors = refused(*arguments)
    assert errors.startswith("clrsearch: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_momentum_bounds_for_an_optimizer_without_momentum(refused) -> None:
    options = ["--task", "tiny.py:Tiny", "--set", "options.optimizer=plain"]
    errors = refused("run", *options, "--set", "bounds.cyclic.base_momentum=0.8")
    assert "bounds.cyclic.base_momentum: the task's optimizer, SGD(), has no momentum" in errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trials = ", "is not valid TOML"),
        ("trails = 3\n", "unknown key trails; did you mean trials"),
        ('trials = "many"\n', "trials: "),
    ],
)
def test_a_wrong_study_file(text, message, refused, tmp_path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    errors = refused("run", str(tmp_path / "mine.toml"))
    assert "mine.toml" in errors
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "line", "last"),
    [
        ("broken.py:Any", "import clrsearch.no_such_module", "ModuleNotFoundError while importing"),
        (
            "tiny.py:FailsAtOnce",
            "output.no_such_method()",
            "AttributeError while taking a train",
        ),
        ("tiny.py:NotConstructed", "raise ValueError(", "ValueError while constructing"),
    ],
)
def test_an_exception_in_the_task_shows_the_users_own_traceback(name, line, last, refused) -> None:
    errors = refused("run", "--task", name)
    assert line in errors
    assert errors.splitlines()[-1].startswith(f"clrsearch: {last}")
    assert "clrsearch/service" not in errors


def test_a_file_that_is_no_database_is_left_alone(clrsearch, url) -> None:
    url.file.write_text("notes " * 100)
    for arguments in (["run"], ["list"], ["best", "digits"]):
        code, out, errors = clrsearch(*arguments)
        assert (code, out) == (2, "")
        assert errors == f"clrsearch: {url.file} is not a SQLite database\n"
    assert url.file.read_text() == "notes " * 100


def test_a_usage_error_exits_with_2_too(clrsearch) -> None:
    code, out, errors = clrsearch("run", "--trials", "many")
    assert (code, out) == (2, "")
    assert "Invalid value for '--trials'" in errors
    assert "Traceback" not in errors


def test_help_costs_neither_torch_nor_optuna() -> None:
    program = (
        "import sys; sys.argv = ['clrsearch', '--help']\n"
        "from clrsearch.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'optuna', 'sqlalchemy', 'sklearn', 'numpy', 'pydantic'}\n"
        "heavy &= set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"
    for command in ("run", "worker", "best", "list", "show", "replay", "delete"):
        assert f"\n  {command} " in done.stdout


def test_the_public_names_cost_no_torch() -> None:
    program = (
        "import sys, clrsearch, clrsearch.service, clrsearch.search\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
