"""Generation. `make_sampler` is the way in."""
from rljax.rollout.sampler import make_sampler

__all__ = ['make_sampler']
