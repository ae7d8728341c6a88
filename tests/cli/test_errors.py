"""Bad input: one clear line on stderr that names what to change, exit code 2, nothing written."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
from importlib import metadata

import pytest
import typer

from clrsearch import service
from clrsearch.cli.app import app
from clrsearch.errors import PlanError
from clrsearch.search import StudyPlan
from clrsearch.worker import WorkerSettings


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
        (
            ["run", "--trials", "1000000000000"],
            "trials: must be at most 100,000, not 1000000000000",
        ),
        (
            ["run", "--epochs", "100000000000"],
            "epochs: must be at most 1,000,000, not 100000000000",
        ),
        (["preview", "cyclic", "--epochs", "100000000000"], "epochs: 100,000,000,000 epochs of"),
        (["run", "--minutes", "0"], "minutes: 0.0 is not a finite number above 0"),
        (["run", "--minutes=-1"], "minutes: -1.0 is not a finite number above 0"),
        (["run", "--minutes", "nan"], "minutes: nan is not a finite number above 0"),
        (["compare", "--minutes", "inf"], "minutes: inf is not a finite number above 0"),
        (["run", "--gpu-hours", "0"], "gpu_hours: 0.0 is not a finite number above 0"),
        (
            ["run", "--epochs-total", "0"],
            "epochs_total: input should be greater than or equal to 1, not 0",
        ),
        (["run", "--set", "minutes=soon"], "minutes: 'soon' is not a finite number above 0"),
        (
            ["run", "--task", "tiny.py:Tiny", "--epochs-total", "8", "--trials", "9"],
            "8 epochs are about 2 runs of 4 epochs, too few for 2 trials and a confirmation of 4: "
            "give at least --epochs-total 24, or fewer --epochs",
        ),
        (["run", "--workers", "-2"], "workers must be at least 0, not -2"),
        (
            [*("run", "--epochs", "3", "--set", 'families=["cyclic"]'), "--set=stepsize=integers"],
            "cyclic does not fit: a cycle takes at least 4 epochs",
        ),
        (
            ["run", "mine.py:Mine"],
            "mine.py:Mine is a task, not a study file: use --task mine.py:",
        ),
        (["compare", "tiny.py:Tiny"], "is a task, not a study file: use --task tiny.py:Tiny"),
        (["range-test", "tiny.py:Tiny"], "is a task, not a study file: use --task tiny.py:Tiny"),
        (["run", "tiny.py"], "tiny.py is not a study file; for a task in it, use --task tiny.py:"),
        (["run", "digits"], "digits is a task, not a study file: use --task digits"),
        (["run", "package.module:Mine"], "use --task package.module:Mine"),
        (["run", "--task", "tiny.py:"], "name a class or function in the file: tiny.py:NAME"),
        (["run", "--task", ""], "no built-in task '' (choose from denoise, digits"),
        (["run", "--task", ":Mine"], "no built-in task :Mine (choose from denoise, digits"),
        (["run", "."], "the study file . cannot be read: Is a directory"),
        (["run", "/dev/zero"], "/dev/zero is not a study file: it is larger than 1000000 bytes"),
        (
            ["run", "--set", "bounds.cyclic.max_lr=[nan, 1]"],
            "bounds.cyclic.max_lr: nan is not a finite number",
        ),
        (
            ["run", "--set", "bounds.cyclic.max_lr=[0.1, inf]"],
            "bounds.cyclic.max_lr: inf is not a finite number",
        ),
        (
            ["run", "--set", "bounds.cyclic.max_lr=[0.1, 1e300]"],
            "bounds.cyclic.max_lr: must be at most 1e+15, not 1e+300",
        ),
        (
            ["run", "--set", "bounds.cyclic.base_ratio=1e14", "--set", "bounds.cyclic.max_lr=1e6"],
            "bounds.cyclic: these bounds allow invalid values: base_lr must be at most 1e+15, not",
        ),
        (
            ["run", "--task", "tiny.py:Headed", "--set", "groups.head=[1, 1e300]"],
            "groups.head: must be at most 1e+15, not 1e+300",
        ),
        (
            ["run", "--set", "bounds.cyclic.max_lr=[0.1, 0.1]"],
            "both ends are 0.1; for a fixed value, use bounds.cyclic.max_lr=0.1",
        ),
        (["run", "--set", "bounds.cyclic.mode=[]"], "bounds.cyclic.mode: no value given"),
        (["run", "--set", "bounds.cyclic=1"], "bounds.cyclic: must be a table, not 1"),
        (["run", "--set", "confirm=3"], "confirm: must be a table, not 3"),
        (["run", "--set", "families=[]"], "families: must not be empty"),
        (["run", "--set", "families=cyclic"], "families: must be a list, not 'cyclic'"),
        (["run", "--set", 'families=["cyclic", "cyclic"]'], "families: cyclic is listed 2 times"),
        (["run", "--set", "baseline=none"], "baseline: every study has one"),
        (
            ["run", "--set", "baseline=cyklic"],
            "baseline: unknown family 'cyklic'; did you mean cyclic",
        ),
        (["run", "--set", "metric="], "metric: must not be empty"),
        (["run", "--set", "confirm.enabled=3"], "confirm.enabled: must be true or false, not 3"),
        (["run", "--set", "confirm.sedes=3"], "confirm.sedes; did you mean confirm.seeds"),
        (["run", "--set", "trials=true"], "trials: must be a whole number, not True"),
        (["run", "--set", "seed=1.5"], "seed: must be a whole number, not 1.5"),
        (["run", "--set", "task=3"], "task: must be a string, not 3"),
        (["run", "--set", "range_test=1"], "range_test: must be true or false, not 1"),
        (["run", "--set", "=3"], "--set =3: expected KEY=VALUE"),
        (["run", "--set", ""], "--set '': expected KEY=VALUE"),
        (["run", "--set", "seed=3\nepochs=4"], ": expected KEY=VALUE"),
        (["run", "--set", "a..b=3"], "'a..b' is not a valid key; keys look like bounds."),
        (["run", "--set", "trials=1", "--set", "trials.x=3"], "trials.x: trials is not a table"),
        (["run", "--epochs", "0"], "epochs: input should be greater than or equal to 1, not 0"),
        (["run", "--device", "gpu"], "the device 'gpu' cannot be used: choose cuda, cuda:1, mps"),
        (["run", "--device", "meta"], "the device 'meta' cannot be used: choose cuda, cuda:1, mps"),
        (["run", "--device", ""], "the device '' cannot be used: choose cuda, cuda:1, mps or"),
        (["run", "--device", "cuda:99"], "the device 'cuda:99' cannot be used: "),
        (["run", "--workers", "-1"], "workers must be at least 0, not -1"),
        (["run", "--task-dir", "none"], "none: no such folder"),
        (["range-test", "--task-dir", "tiny.py"], "tiny.py: no such folder"),
        (["run", "--checkpoint-dir", "tiny.py"], "tiny.py is not a folder: set one with --check"),
        (
            ["preview", "cyclic", "-o", "no/such.png"],
            "no/such.png cannot be written: there is no f",
        ),
        (["range-test", "-o", "no/such.png"], "no/such.png cannot be written: there is no folder"),
        (["report", "x", "-o", "no/such.html"], "no/such.html cannot be written: there is no fol"),
        (["preview", "step", "--epochs", "1"], "--epochs 2 or more"),
        (["run", "--set", "trails=3"], "unknown key trails; did you mean trials"),
        (
            ["run", "--set", "bounds.cyclic.max_lr=[1,2"],
            "=[1,2: not valid TOML",
        ),
        (["run", "--set", "trials"], "--set trials: expected KEY=VALUE"),
        (["run", "--set", 'families=["cyklic"]'], "unknown family 'cyklic'; did you mean cyclic"),
        (
            ["run", "--set", "bounds.cyclic.max_lr=[1, 0.1]"],
            "bounds.cyclic.max_lr: the lower end 1",
        ),
        (["run", "--set", "bounds.cyclic.mode=sine"], "bounds.cyclic.mode: 'sine' is not one of"),
        (["run", "--set", 'families=["manual"]'], "manual does not fit: no rates are given"),
        (["run", "--set", "manual=[[20, 0.1]]"], "manual is not one of the families"),
        (
            ["compare", "--task", "digits", "--set", "manual=[[5, 0.1], [10, 0.01]]"],
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
        (["compare", "--set", "manual=tiny.py"], "tiny.py: name a function as"),
        (["compare", "--set", "manual=tiny.py:nothing"], "tiny.py has no function nothing"),
        (["compare", "--set", "manual=none.py:rate"], "no such file: "),
        (
            ["compare", "--task", "digits", "--set", "manual=tiny.py:negative_later"],
            "tiny.py:negative_later must return a positive number, not -0.1 at step 310",
        ),
        (
            ["run", "--set", "groups.head=2.0"],
            "groups.head: the optimizer has no such group; it has only 0",
        ),
        (
            ["run", "--task", "tiny.py:Headed", "--set", "groups.haed=2.0"],
            "groups.haed: the optimizer has no such group; did you mean head?",
        ),
        (
            ["run", "--task", "tiny.py:Headed", "--set", "groups.body=2.0"],
            "groups.body: the first group follows the schedule's own rate",
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
            "groups.head: 'fast' is neither a number nor a range [LOW, HIGH]",
        ),
        (
            ["run", "--set", "options.optimizer=lion"],
            "options.optimizer: Input should be 'nesterov'",
        ),
        (
            ["run", "--task", "digitz"],
            "no built-in task digitz (choose from denoise, digits, cifar10, cifar100, mnist, ",
        ),
        (["run", "--task", "nothere.py:Mine"], "no such file: "),
        (["run", "--task", "no.such.module:Mine"], "no module no.such.module can be imported"),
        (["run", "--task", "tiny.py:Tinny"], "tiny.py has no Tinny; its tasks: Tiny, "),
        (["run", "--task", "tiny.py:NanMetric"], "metric error of the untrained model is nan"),
        (["run", "--task", "tiny.py:TextMetric"], "measure(): error is the str 'good', but"),
        (["run", "--task", "tiny.py:OtherMetric"], "the task does not measure 'accuracy'"),
        (["run", "--set", "metric=speed", "--task", "tiny.py:Tiny"], "does not measure 'speed'"),
        (["run", "--device", "tpu9"], "the device 'tpu9' cannot be used"),
        (["run", "--storage", "studies.db"], "not a database URL: use sqlite:///FILE"),
        (
            ["run", "--storage", "sqlite:////no/such/folder/s.db"],
            "the database folder /no/such/folder",
        ),
        (["run", "--name", ""], "the study name is empty: choose another with --name"),
        (["run", "--name", "-x"], "the study name '-x' starts with a dash, like an option"),
        (["run", "--name", "a\n"], r"the study name 'a\n' contains unprintable characters"),
        (["run", "--name", "a\x1b[31m"], r"the study name 'a\x1b[31m' contains unprintable"),
        (["run", "--name", "a\u202e"], r"the study name 'a\u202e' contains unprintable"),
        (["run", "--name", " a"], "the study name ' a' starts or ends with a space"),
        (["run", "--name", "../.."], "the study name '../..' contains no letter or digit"),
        (["run", "--name", "n" * 201], "nnn...' is longer than 200 characters: choose another"),
        (["compare", "--name", "-x"], "the study name '-x' starts with a dash"),
        (["best", "digits"], "no studies at sqlite:///"),
        (["worker", "digits"], "no studies at sqlite:///"),
    ],
)
def test_one_line_names_what_to_change(arguments, message, refused) -> None:
    here = [] if arguments[0] != "run" or "--workers" in arguments else ["--workers", "0"]
    errors = refused(*arguments, *here)  # "here": no other process has to import torch first
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
        ('trials = "many"\n', "trials: must be a whole number, not 'many'"),
        ('trials = "3"\n', "trials: must be a whole number, not '3'"),
        ("\ufefftrials = 0\n", "trials: input should be greater than or equal to 1"),
        ("trials = 3 # \x00\n", "is not valid TOML"),
        ("bounds = 3\n", "bounds: must be a table, not 3"),
        ("options = {optimizer = [1]}\n", "options.optimizer: [1] is not a number"),
        ("[study]\ntrials = 3\n", "unknown key study"),
        ("#" * 1_000_001, "it is larger than 1000000 bytes"),
    ],
)
def test_a_wrong_study_file(text, message, refused, tmp_path) -> None:
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    errors = refused("run", "--workers", "0", str(tmp_path / "mine.toml"))
    assert "mine.toml" in errors
    assert message in errors
    assert errors.count("\n") == 1


def test_a_study_file_that_is_no_text_or_a_folder(refused, tmp_path) -> None:
    (tmp_path / "mine.toml").write_bytes(b'trials = 3\nmetric = "\xff"\n')
    (tmp_path / "folder.toml").mkdir()
    errors = refused("run", str(tmp_path / "mine.toml"))
    assert errors.endswith("mine.toml is not UTF-8 text: see line 2\n")
    errors = refused("run", str(tmp_path / "folder.toml"))
    assert errors.endswith("folder.toml cannot be read: Is a directory\n")


def test_a_byte_order_mark_is_read_over(tmp_path, clrsearch, monkeypatch, task_dir) -> None:
    monkeypatch.delenv("CLRSEARCH_STORAGE", raising=False)
    for name, text in (
        ("mine.py", (task_dir / "tiny.py").read_text()),
        ("mine.toml", 'task = "mine.py:Tiny"\ntrials = 1\n'),
        ("url", f"sqlite:///{tmp_path / 'studies.db'}\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    options = ("--no-confirm", "--workers", "0", "--storage-file", str(tmp_path / "url"))
    code, out, errors = clrsearch("run", str(tmp_path / "mine.toml"), *options)
    assert (code, errors) == (0, "")
    assert "1 of 1 trials done" in out


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
    errors = refused("run", "--task", name, "--workers", "0")
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--trials", "many"], "Invalid value for '--trials': "),
        (["run", "--checkpoint-seconds", "nan"], "Invalid value for '--checkpoint-seconds': "),
        (["worker", "x", "--max-minutes", "-1"], "Invalid value for '--max-minutes': "),
        (["worker", "x", "--max-trials", "0"], "Invalid value for '--max-trials': "),
        (["worker", "x", "--idle-wait", "-1"], "Invalid value for '--idle-wait': "),
        (["run", "--trails", "3"], "No such option: --trails"),
        (["replay", "x"], "Missing argument 'TRIAL' (clrsearch replay --help)"),
        (["plot", "x", "curves"], "Missing option '--output' / '-o' (clrsearch plot --help)"),
        (["run", "a.toml", "b.toml"], "unexpected extra argument"),
        (["launch", "local", "x", "--workers", "0"], "(clrsearch launch local --help)"),
        (["begin"], "No such command 'begin' (clrsearch --help)"),
    ],
)
def test_a_usage_error_is_one_line_too(arguments, message, refused) -> None:
    errors = refused(*arguments)
    assert errors.startswith("clrsearch: ")
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["run"], ["db"], ["db", "check"], ["launch", "slurm"]])
def test_help_is_asked_for_shortly_too(command, clrsearch) -> None:
    code, out, errors = clrsearch(*command, "-h")
    assert (code, errors) == (0, "")
    assert out.split()[: len(command) + 2] == ["Usage:", "clrsearch", *command]


@pytest.mark.parametrize("command", ["run", "compare", "confirm", "list", "status", "show"])
def test_help_says_where_json_means_json_lines(command, clrsearch) -> None:
    _, out, _ = clrsearch(command, "--help")
    assert "Print JSON Lines: one object per line." in " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize("command", [[], ["db"], ["launch"]])
def test_a_command_without_its_subcommand_shows_its_help(command, clrsearch) -> None:
    code, out, errors = clrsearch(*command)
    assert (code, errors) == (2, "")
    assert out.split()[: len(command) + 2] == ["Usage:", "clrsearch", *command]


def commands(group, words=()):
    """Every command below a group: its words, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


EVERY = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_a_summary_is_one_line_of_the_overview(words, clrsearch) -> None:
    summary = EVERY[words].help.split("\n\n")[0].strip()
    assert "\n" not in summary and summary.endswith(".")
    _, out, _ = clrsearch(*words[:-1], "--help")
    assert f"│ {words[-1]} " in out
    assert summary in out


@pytest.mark.parametrize("words", [each for each in EVERY if len(each) == 1], ids=" ".join)
def test_a_command_has_an_example_that_parses(words, clrsearch) -> None:
    _, out, _ = clrsearch(*words, "--help")
    example = shlex.split(out.split("Example: ")[1].split(">")[0])
    assert example[:2] == ["clrsearch", *words]
    EVERY[words].make_context(words[0], example[2:])


def test_the_version_is_told(clrsearch) -> None:
    assert clrsearch("--version") == (0, f"clrsearch {metadata.version('clrsearch')}\n", "")


def test_who_is_asked_and_says_no_changes_nothing(clrsearch, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, errors = clrsearch("db", "upgrade")
    assert (code, errors) == (1, "clrsearch: aborted\n")


@pytest.mark.parametrize(
    ("epochs", "arguments", "ways_out"),
    [
        (
            "3",
            ["--set", 'families=["cyclic"]', "--set", "stepsize=integers"],
            "cyclic does not fit: a cycle takes at least 4 epochs, since stepsizes are 2 to 10; "
            "the run has 3. Train longer, --epochs 4 or more, or search a family that fits, "
            "--set 'families=[\"onecycle\"]'; others that fit: cosine, cosine_restarts, linear, "
            "polynomial, step, multistep, exponential, wsd",
        ),
        (
            "1",
            ["--set", 'families=["step"]'],
            "step does not fit: a drop needs an epoch before and after it, so at least 2 "
            "epochs; there is 1. Train longer, --epochs 2 or more, or search a family that fits, "
            "--set 'families=[\"cyclic\"]'; others that fit: onecycle, cosine, linear, polynomial, "
            "exponential, wsd",
        ),
        (
            "3",
            [*("--set", 'families=["linear"]'), "--set=baseline=cyclic", "--set=stepsize=integers"],
            "Train longer, --epochs 4 or more, or compare with --set baseline=constant",
        ),
    ],
)
def test_too_few_epochs_come_with_ways_out(epochs, arguments, ways_out, refused) -> None:
    errors = refused("run", "--workers", "0", "--epochs", epochs, *arguments)
    assert errors.strip().endswith(ways_out)


def test_a_way_out_of_too_few_epochs_leads_out(task_dir, url, clrsearch, monkeypatch) -> None:
    monkeypatch.chdir(task_dir)
    words = ["run", "--task", "tiny.py:Tiny", "--trials", "1", "--no-confirm", "--epochs", "3"]
    words += ["--workers", "0", "--set", "stepsize=integers"]
    _, _, errors = clrsearch(*words, "--set", 'families=["cyclic"]')
    option = errors.partition("search a family that fits, ")[2].partition(";")[0]
    code, out, errors = clrsearch(*words, *shlex.split(option))
    assert (code, errors) == (0, "")
    assert "onecycle" in out


def test_families_that_nobody_named_are_left_out_where_they_do_not_fit(
    task_dir, url, clrsearch, monkeypatch
) -> None:
    monkeypatch.chdir(task_dir)
    words = ["run", "--task", "tiny.py:Tiny", "--trials", "2", "--no-confirm", "--epochs", "2"]
    code, _, errors = clrsearch(*words, "--workers", "0")
    assert code == 0
    notes = errors.splitlines()
    assert "left out: onecycle (the rise takes 0.1 of the horizon" in notes[0]
    assert "left out: cosine_restarts (two cycles, the second twice as long" in notes[1]
    assert "cyclic: 2 epochs are too few for stepsizes of 2 epochs or more" in notes[2]
    assert len(notes) == 3


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
        assert f"\n│ {command} " in done.stdout


def test_the_public_names_cost_neither_torch_nor_scikit_learn() -> None:
    program = (
        "import sys, clrsearch, clrsearch.service, clrsearch.search\n"
        "print(sorted({'torch', 'sklearn', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([f"bounds.cyclic.max_lr={'9' * 400}"], "is not a finite number"),
        ([f"manual=[[4, {'9' * 400}]]", 'families=["manual"]'], "is not a finite number"),
        (["manual=[[inf, 1.0]]", 'families=["manual"]'], "inf is not a finite number"),
        ([f"seed={'9' * 5000}"], "not valid TOML"),
        ([f"seed={'[' * 5000}"], "nested too deeply"),
        (["metric=close"], "so give its direction"),
    ],
)
def test_values_beyond_all_bounds_are_named(clrsearch, url, task_dir, monkeypatch, given, said):
    monkeypatch.chdir(task_dir)
    options = [word for each in given for word in ("--set", each)]
    code, _, errors = clrsearch(
        "run", "--task", "tiny.py:Tiny", "--trials", "2", "--workers", "0", *options
    )
    assert code == 2
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert len(errors) < 300
    assert not url.file.exists()


def test_toml_without_end_is_named(clrsearch, url, tmp_path) -> None:
    file = tmp_path / "study.toml"
    for text, said in ((f"seed = 1{'0' * 5000}", "digits"), (f"seed = {'[' * 5000}", "nested")):
        file.write_text(text)
        code, _, errors = clrsearch("run", str(file))
        assert code == 2
        assert f"{file} is not valid TOML" in errors
        assert said in errors
    assert not url.file.exists()


def test_a_plan_made_in_python_is_refused_as_one_from_a_file(url, task_dir) -> None:
    wrong = StudyPlan(task="tiny.py:Tiny", trials=2, families=("nope",))
    with pytest.raises(PlanError, match="families: unknown family 'nope'"):
        service.run(wrong, settings=WorkerSettings(task_dir=str(task_dir)))
    with pytest.raises(PlanError, match="needs a StudyPlan"):
        service.run("digits")
    assert not url.file.exists()


def test_surroundings_that_are_amiss_are_told_in_a_line(tmp_path) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "file").write_text("")
    command = f"{shlex.quote(sys.executable)} -P -m clrsearch"
    for line, said in (
        (f"cd gone && rmdir ../gone && {command} list", "the current folder no longer exists"),
        (f"XDG_DATA_HOME={tmp_path}/file/data {command} list", "your data folder"),
        (f"{command} preview constant > /dev/full", "the output cannot be written: No space"),
        (
            f"{command} run --storage sqlite:///s.db --workers 0 --checkpoint-dir file/checkpoints",
            "set another with --checkpoint-dir",
        ),
    ):
        ended = subprocess.run(
            line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 2, ended.stderr
        assert said in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "s.db").exists()


def test_an_error_never_goes_to_stdout(tmp_path) -> None:
    line = f"{shlex.quote(sys.executable)} -P -m clrsearch show x --storage sqlite:///s.db 2>&-"
    ended = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode == 2
    assert ended.stdout == b""
