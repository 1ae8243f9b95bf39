"""What all tests share: Ray on loopback only, whoever imports it first; nothing of the terminal they start from."""

import os

# The terminal's size, the cloud it is signed in to, and the Trimtab it talks to.
for _name in [name for name in os.environ if name in {"COLUMNS", "LINES", "TRIMTAB_TOKEN"} or name.startswith("OS_")]:
    del os.environ[_name]

from trimtab.serve import local_ray  # noqa: E402

__all__ = ["local_ray"]
