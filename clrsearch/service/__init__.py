"""clrsearch's operations as functions, called by the command line and ``clrsearch.api``."""

from clrsearch.service.change import (
    cancel,
    delete,
    make_database_roles,
    retry,
    upgrade_database,
)
from clrsearch.service.dashboards import Dashboard, dashboard
from clrsearch.service.db_health import Pruned, check_database, prune_checkpoints
from clrsearch.service.doctor import Finding, examine
from clrsearch.service.horizons import horizon, horizon_plan
from clrsearch.service.launching import Launch, Workers, launch_local, launch_ray, launch_slurm
from clrsearch.service.look import (
    Best,
    Picture,
    Replayed,
    Shown,
    best,
    list_studies,
    picture,
    replay,
    show,
    status,
)
from clrsearch.service.mirroring import Mirroring, mirror
from clrsearch.service.notifying import run_notifying
from clrsearch.service.pages import report
from clrsearch.service.paths import Storage, default_name, storage_url
from clrsearch.service.plans import Comparison, comparison, confirmation_plan
from clrsearch.service.previews import Preview, preview
from clrsearch.service.provenance import versions
from clrsearch.service.running import Result, run
from clrsearch.service.starting import new_file, new_notebook, notebook_server
from clrsearch.service.testing import Tested, range_test
from clrsearch.service.tour import Step, run_in, tutorial_folder, tutorial_steps
from clrsearch.service.transferring import Transfer, transfer
from clrsearch.service.varying import vary
from clrsearch.service.worker_logs import WorkerLog, logs
from clrsearch.service.working import work
from clrsearch.worker import WorkerSettings

__all__ = [
    "Best",
    "Comparison",
    "Dashboard",
    "Finding",
    "Launch",
    "Mirroring",
    "Picture",
    "Preview",
    "Pruned",
    "Replayed",
    "Result",
    "Shown",
    "Step",
    "Storage",
    "Tested",
    "Transfer",
    "WorkerLog",
    "WorkerSettings",
    "Workers",
    "best",
    "cancel",
    "check_database",
    "comparison",
    "confirmation_plan",
    "dashboard",
    "default_name",
    "delete",
    "examine",
    "horizon",
    "horizon_plan",
    "launch_local",
    "launch_ray",
    "launch_slurm",
    "list_studies",
    "logs",
    "make_database_roles",
    "mirror",
    "new_file",
    "new_notebook",
    "notebook_server",
    "picture",
    "preview",
    "prune_checkpoints",
    "range_test",
    "replay",
    "report",
    "retry",
    "run",
    "run_in",
    "run_notifying",
    "show",
    "status",
    "storage_url",
    "transfer",
    "tutorial_folder",
    "tutorial_steps",
    "upgrade_database",
    "vary",
    "versions",
    "work",
]
