"""What all tests share: Ray on loopback only, whoever imports it first; tables as wide as a test asks for."""

import os

for _size in ("COLUMNS", "LINES"):  # of the terminal that the tests were started from
    os.environ.pop(_size, None)

from trimtab.serve import local_ray  # noqa: E402

__all__ = ["local_ray"]
