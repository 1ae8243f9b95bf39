"""What all tests share: Ray on loopback only, whoever imports it first."""

from trimtab.serve import local_ray

__all__ = ["local_ray"]
