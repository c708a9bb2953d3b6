"""What a user can do, one function a verb: the command line and the Python interface are both made of these."""

from todm.verbs.bundles import bench, export, transcribe, verify
from todm.verbs.installation import doctor
from todm.verbs.subnets import advise, extract, report, search
from todm.verbs.training import compare, train
from todm.verbs.whole import run

__all__ = [
    "advise", "bench", "compare", "doctor", "export", "extract", "report", "run", "search", "train", "transcribe",
    "verify",
]  # fmt: skip
