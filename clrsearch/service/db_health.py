"""Check the contents of a database, and remove checkpoints that none of its studies needs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clrsearch import proposals, training, worker
from clrsearch.errors import StorageError, StudyError
from clrsearch.search import Misfit, Studies, Study, misfits
from clrsearch.service.doctor import Finding
from clrsearch.service.equipment import TRUNKS
from clrsearch.service.paths import (
    Storage,
    beside,
    checkpoint_root,
    storage_url,
    study_folder,
)
from clrsearch.service.plans import run_command
from clrsearch.storage import SlotState, open_database, slot_owners

BY_HAND = (
    "no worker causes this: was the database edited by hand, or only partly restored? "
    "The study's results cannot be trusted"
)


def check_database(*, storage: Storage = None) -> list[Finding]:
    """Check that the slots, trials and values of every study and confirmation are consistent.

    Checkpoints of running trials are checked too, if they are in this machine's checkpoint folder.
    Nothing is changed.

    Raises:
        StorageError: there is no database, or its version is different.
    """
    url = storage_url(storage)
    with open_database(url) as database:
        ours, others = Studies(database).names()
        says = f"{url}: schema {database.optuna.get_current_version()}, {len(ours)} studies"
        findings = [Finding(what="storage", state="ok", says=f"{says}, including confirmations")]
        owners = slot_owners(database.engine)
        for name in ours:
            try:
                study = Study.open(database, name)
                owners.discard(study.uuid)
                findings += list(_check(study))
                findings += _check_checkpoints(study, checkpoint_root(url, None) / study.uuid)
            except StudyError as error:
                findings.append(Finding(what=name, state="wrong", says=str(error)))
    if others:
        says = f"{len(others)} studies that clrsearch did not create; they are left alone"
        findings.append(Finding(what="others", state="ok", says=says))
    if owners:
        findings.append(
            Finding(
                what="slots",
                state="note",
                says=f"there are slots of {len(owners)} studies that do not exist",
                remedy="a deletion was interrupted, or a study cannot be read; this is harmless",
            )
        )
    return findings


def _check(study: Study) -> Iterator[Finding]:
    claims = study.slots.claims()
    before = study.slots.states()
    records = study.history.records()
    slots = {**study.slots.states(), **before}  # more may have been added meanwhile
    budget = study.plan.trials if study.stage == "search" else 0
    wrong = misfits(
        slots, records, budget=budget, epochs=study.facts.intervals, unit=study.facts.progress
    )
    counts = ", ".join(
        f"{number} {state}" for state in SlotState if (number := list(slots.values()).count(state))
    )
    if all(each.passing for each in wrong):
        yield Finding(what=study.name, state="ok", says=f"{len(slots)} slots: {counts or 'none'}")
    for each in wrong:
        yield Finding(
            what=study.name,
            state="note" if each.passing else "wrong",
            says=each.says,
            remedy=_remedy(study, each),
        )
    lost = [claim for claim in claims if claim.expired]
    if lost:
        yield Finding(
            what=study.name,
            state="note",
            says=f"{len(lost)} slots are held by workers that no longer respond",
            remedy=f"{proposals.command('worker', study.name)} takes them over and resumes "
            "their trials",
        )
    drifted = [str(record.number) for record in records if record.drift]
    if drifted:
        repeated = f"a repeated {study.facts.progress} gave a different result"
        replay = proposals.command("replay", study.name, drifted[0])
        yield Finding(
            what=study.name,
            state="note",
            says=f"trials {', '.join(drifted)}: {repeated}",
            remedy=f"results differ between machines or packages; {replay} shows by how much",
        )


def _check_checkpoints(study: Study, folder: Path) -> Iterator[Finding]:
    """Find running trials with a local checkpoint that no worker can resume from."""
    for record in study.history.records():
        if record.state != "running":
            continue
        path = training.checkpoint_path(folder, record.number)
        try:
            with training.open_checkpoint(path) as (found, _), training.restoring():
                training.Identity(
                    study=study.uuid,
                    trial=record.number,
                    family=record.family,
                    params=record.params,
                    attempt=found.attempt + 1,
                ).require(found)
        except FileNotFoundError:
            continue
        except training.Unrestorable as error:
            yield Finding(
                what=study.name,
                state="note",
                says=f"the checkpoint {path} cannot be used: {error}",
                remedy=f"trial {record.number} starts over when a worker claims it",
            )


def _remedy(study: Study, misfit: Misfit) -> str:
    match misfit.mended_by:
        case "run":
            return f"{run_command(study, trials=study.plan.trials)} adds them"
        case "worker":
            return f"{proposals.command('worker', study.name)} fixes this"
    return BY_HAND


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed.

    Attributes:
        root: the folder with the checkpoints of all studies.
        files: number of files removed.
        size: their total size in bytes.
        foreign: folders that were left alone.
    """

    root: Path
    files: int
    size: int
    foreign: tuple[Path, ...]


def prune_checkpoints(*, storage: Storage = None, checkpoint_dir: Path | None = None) -> Pruned:
    """Remove the checkpoints that no running trial in this database needs.

    Such checkpoints remain when workers are killed or studies deleted. Folders that belong to no
    study in the database are left alone, since several databases may share a checkpoint folder. In
    the folder beside a SQLite file, which belongs to that file alone, they are emptied as well.

    Raises:
        StorageError: there is no database, a file cannot be removed, or a link leads elsewhere.
        StudyError: a study cannot be read, so the checkpoints it needs are unknown.
    """
    url = storage_url(storage)
    root = checkpoint_root(url, checkpoint_dir)
    alone = url.file is not None and root == beside(url.file)
    files: list[Path] = []
    done: list[Path] = []
    foreign: list[Path] = []
    names = sorted(path.name for path in root.glob("*") if _is_uuid(path.name))
    folders = [study_folder(root, name) for name in names]  # list these before the studies
    with open_database(url) as database:
        opened = [Study.open(database, name) for name in Studies(database).names()[0]]
        studies = {study.uuid: study for study in opened}
        for folder in folders:
            study = studies.get(folder.name)
            if study is not None:
                files += training.needless(folder, partial(worker.needed, study))
                if not study.slots.unfinished():
                    files += (folder / TRUNKS).glob("*")
                    done += [folder / TRUNKS, folder]
            elif alone:
                files += training.needless(folder, lambda: training.Needed(trials=(), workers=()))
                files += (folder / TRUNKS).glob("*")
                done += [folder / TRUNKS, folder]
            else:
                foreign.append(folder)
    sizes = [_remove(path) for path in files]
    for folder in done:
        with suppress(OSError):  # not empty: it contains other files
            folder.rmdir()
    removed = [size for size in sizes if size is not None]
    return Pruned(root=root, files=len(removed), size=sum(removed), foreign=tuple(foreign))


def _remove(path: Path) -> int | None:
    """Remove a file and return its size; None if its worker has removed it meanwhile."""
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error.strerror}") from error
    return size


def _is_uuid(text: str) -> bool:
    """Whether ``text`` is a UUID, as the name of a study's folder is."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
