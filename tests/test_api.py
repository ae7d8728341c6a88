"""The front door: run, open and lr_find, and the study that they give."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from plotly.graph_objects import Figure as PlotlyFigure

import clrsearch
from clrsearch import PlanError, StudyError, StudyPlan, TaskError, service

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def local():
    """Classes and a loop that no other process can import, as of a notebook."""
    namespace = {"__name__": "__main__"}
    source = """
        import clrsearch
        from tiny import FailsLater, Tiny

        class Line(Tiny):
            pass

        class Broken(FailsLater):
            pass

        def loop(run):
            import torch
            model = torch.nn.Linear(1, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            scheduler = run.scheduler(optimizer, steps_per_epoch=2)
            for epoch in run.epochs():
                for _ in range(2):
                    loss = (model(torch.ones(1, 1)) - 2).square().sum()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    scheduler.step()
                run.report(loss=loss.item())
        """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tests" / "tasks_for_tests"))
        exec(textwrap.dedent(source), namespace)
    return namespace


@pytest.fixture(scope="module")
def searched(local, tmp_path_factory) -> Path:
    """A database with a study of one of them."""
    file = tmp_path_factory.mktemp("searched") / "studies.db"
    storage = f"sqlite:///{file}"
    clrsearch.run(local["Line"], storage=storage, trials=12, seed=1, progress=False, workers=1)
    return file


@pytest.fixture
def study(searched, url):
    """The study, in a copy of its own."""
    shutil.copy(searched, url.file)
    return clrsearch.open("line")


def test_a_class_of_a_notebook_is_searched_in_this_process(study) -> None:
    assert [each.state for each in study.trials].count("complete") >= 8
    assert len(study.trials) == 12
    assert study.runs and all(run.seed_index >= 1 for run in study.runs)
    assert study.verdict.chosen == study.best.number
    assert service.list_studies()[0].name == study.name == "line"


def test_a_function_of_a_notebook_is_searched_too(local, url) -> None:
    found = clrsearch.run(
        local["loop"],
        trials=4,
        epochs=4,
        metric="loss",
        direction="minimize",
        confirm={"enabled": False},
        families=["linear"],
        progress=False,
    )
    assert (found.name, len(found.trials)) == ("loop", 4)


def test_the_best_schedule_plays_what_it_says(study) -> None:
    best = study.best
    played = best.trace()
    assert played.rates.shape == (1, 16)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.02, momentum=0.9)
    scheduler = best.make_scheduler(optimizer, 4)
    rates = []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates, played.rates[0], rtol=1e-12)
    assert best.params == study.trials[best.number].params
    assert "def make_scheduler" in best.code == study.export()


def test_the_same_call_resumes_and_more_trials_extend(study, local) -> None:
    again = clrsearch.run(local["Line"], trials=12, seed=1, progress=False)
    assert [each.ended for each in again.trials] == [each.ended for each in study.trials]
    assert len(again.run(14, progress=False).trials) == 14


def test_a_confirmation_can_be_given_more_seeds(study) -> None:
    study.confirm(top=2, seeds=4, progress=False)
    seeds = {standing.trial: len(standing.scores) for standing in study.verdict.standings}
    assert min(seeds.values()) >= 4


def test_a_comparison_gives_each_family_as_many_trials(url) -> None:
    found = clrsearch.run(
        StudyPlan(
            task="tests.tasks_for_tests.tiny:Tiny",
            families=("linear",),
            trials=2,
            confirm={"enabled": False},
        ),
        name="two",
        task_dir=ROOT,
        workers=0,
        progress=False,
    )
    with pytest.warns(UserWarning, match="left out: |fewer than 5"):
        compared = found.compare(12, workers=0, progress=False)
    families = [each.family for each in compared.trials]
    assert compared.name == "two-compare"
    assert {families.count(each) for each in set(families)} <= {1, 2}
    assert len(set(families)) > 5


def test_a_stored_study_is_opened_by_its_name(study) -> None:
    there = clrsearch.open("line")
    assert there.best.number == study.best.number
    with pytest.raises(StudyError, match="no study lime; did you mean line"):
        clrsearch.open("lime")


def test_every_figure_is_a_plotly_one(study) -> None:
    plots = study.plot
    for figure in (
        *(plots.schedule(), plots.curves(), plots.scores(), plots.trials()),
        *(plots.progress(), plots.progress(by="time")),
    ):
        assert isinstance(figure, PlotlyFigure)
        assert figure.data
    with pytest.raises(StudyError, match="no range test"):
        plots.range_test()


def test_a_range_test_is_plotted(local, url) -> None:
    found = clrsearch.lr_find(local["Line"])
    assert 0 < found.base_lr < found.max_lr
    assert isinstance(found.plot(), PlotlyFigure)
    assert len(repr(found)) < 200
    assert service.list_studies() == []


def test_trials_are_rows_of_a_dataframe(study) -> None:
    frame = study.trials_dataframe()
    assert list(frame["number"]) == list(range(12))
    assert frame["value"].min() == min(each.value for each in study.trials)
    assert "params_max_lr" in frame


def test_representations_are_short_and_a_notebooks_has_a_picture(study) -> None:
    shown = repr(study)
    assert shown.startswith("<clrsearch.Study 'line': 12 of 12 trials (")
    assert f"(trial {study.best.number})" in shown
    for each in (study, study.best, study.trials[0], service.show("line")):
        assert len(repr(each)) < 1500
    page = study._repr_html_()
    assert "data:image/svg+xml;base64," in page
    assert str(study.best.number) in page


def test_it_is_written_to_a_page_and_removed(study, tmp_path) -> None:
    study.report(tmp_path / "mine.html")
    assert "<html" in (tmp_path / "mine.html").read_text()
    assert study.export("table", tmp_path / "rates.csv") == (tmp_path / "rates.csv").read_text()
    assert study.replay().matches
    study.delete()
    with pytest.raises(StudyError):
        clrsearch.open("line")


def test_a_notebooks_task_has_one_worker(local, url) -> None:
    with pytest.raises(PlanError, match="move it to a file, or pass workers=1"):
        clrsearch.run(local["Line"], workers=2, progress=False)


def test_a_notebooks_task_is_not_there_elsewhere(study, clrsearch) -> None:
    assert clrsearch("replay", "line", "0")[0] == 0  # it is kept in this process
    script = "from clrsearch import service; service.replay('line', 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    said = "Line was defined in a notebook or interactive session and exists only there"
    assert said in done.stderr


def test_its_failure_stops_the_study_with_its_traceback(local, url) -> None:
    with pytest.raises(clrsearch.ClrsearchError) as caught:
        clrsearch.run(local["Broken"], trials=6, progress=False)
    assert "no such column" in getattr(caught.value, "traceback", str(caught.value))


@pytest.mark.parametrize(
    ("given", "keys", "message"),
    [
        (3, {}, "not the int 3"),
        ("digitz", {}, "did you mean digits"),
        (None, {"triels": 3}, "unknown key triels; did you mean trials"),
        (StudyPlan(), {"trials": 3}, "set in the StudyPlan"),
        ("none.toml", {}, "none.toml"),
    ],
)
def test_what_cannot_be_run_is_told(given, keys, message, url) -> None:
    with pytest.raises((PlanError, TaskError), match=message):
        clrsearch.run(given, progress=False, **keys)


SCRIPT = """
import os
import clrsearch
from tiny import Tiny

class Mine(Tiny):
    def model(self):
        with open("pids", "a") as file:
            print(os.getpid(), file=file)
        return super().model()

{guard}print(os.getpid())
{guard}study = clrsearch.run(Mine, trials=6, workers=1, device="cpu", progress=False)
{guard}print(study)
"""


def run_script(folder: Path, guard: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT.format(guard=guard))
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=100
    )


def test_a_class_of_a_script_is_searched_by_worker_processes(tmp_path, task_dir, url) -> None:
    (tmp_path / "tiny.py").write_text((task_dir / "tiny.py").read_text())
    done = run_script(tmp_path, "if __name__ == '__main__': ")
    assert done.returncode == 0, done.stderr
    own, shown = done.stdout.splitlines()
    assert shown.startswith("<clrsearch.Study 'script': 6 of 6 trials")
    assert own not in (tmp_path / "pids").read_text().split()


def test_a_script_that_calls_it_while_it_is_imported_is_told(tmp_path, task_dir, url) -> None:
    (tmp_path / "tiny.py").write_text((task_dir / "tiny.py").read_text())
    done = run_script(tmp_path, "")
    assert done.returncode == 1
    assert "script.py calls clrsearch.run(...) when it is imported" in done.stderr
    assert service.list_studies() == []


def test_the_tutorial_runs(tmp_path) -> None:
    """Every cell of the notebook, in a kernel of its own."""
    notebook = ROOT / "clrsearch" / "service" / "notebook.ipynb"
    assert (ROOT / "docs" / "tutorials" / "notebook.ipynb").resolve() == notebook
    nbformat.validate(nbformat.read(notebook, as_version=4))
    script = f"""
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read({str(notebook)!r}, as_version=4)
        NotebookClient(notebook, timeout=300).execute()
        shown = [str(output) for cell in notebook.cells for output in cell.get("outputs", ())]
        assert any("clrsearch.Study 'mine': 30 of 30 trials" in each for each in shown)
        assert any("def make_scheduler" in each for each in shown)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, "CLRSEARCH_STORAGE": f"sqlite:///{tmp_path}/users.db"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "users.db").exists()
    assert all(each.name.startswith("clrsearch-tutorial") for each in tmp_path.iterdir())
    assert (tmp_path / "clrsearch-tutorial.html").exists()


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "optuna", "numpy", "sqlalchemy")
    script = f"import sys, clrsearch; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n"
