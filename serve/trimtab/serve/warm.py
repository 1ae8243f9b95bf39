"""Set-up's last step: compile the kernels and fill matplotlib's font cache, so that no first run is slow."""

from __future__ import annotations

import time


def main() -> None:
    """Compile and cache on disk everything that is compiled at first use."""
    begin = time.perf_counter()
    from trimtab.strategies.warm import warm

    warm()
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot  # noqa: F401 (its import builds the font cache)

    print(f"kernels compiled and cached in {time.perf_counter() - begin:.1f} s")  # noqa: T201


if __name__ == "__main__":
    main()
