"""Policies and reward models. `create` is the way in."""
from rljax.models import transformer
from rljax.models import variants


def create(variant: str, **overrides) -> transformer.Transformer:
  """Builds a model: `create('tiny', dtype='bfloat16')`.

  Raises:
    ValueError: unknown variant or field, or fields that contradict each other.
  """
  return transformer.Transformer(variants.get(variant, **overrides))
