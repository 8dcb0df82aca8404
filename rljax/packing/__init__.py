"""Which tokens enter a step, and where they lie in its rows."""
from rljax.packing.budget import check_budget
from rljax.packing.budget import select
from rljax.packing.budget import select_many
from rljax.packing.carry import join
from rljax.packing.carry import left_over
from rljax.packing.carry import needs_more
from rljax.packing.carry import take_prompts
from rljax.packing.layout import place
from rljax.packing.layout import policy_shares
from rljax.packing.layout import row_fill
from rljax.packing.layout import rows_bound
from rljax.packing.lists import pack_lists
from rljax.packing.pack import pack
from rljax.packing.pack import pack_examples
from rljax.packing.pack import response_index
from rljax.packing.pack import unpack
from rljax.packing.pairs import Place
from rljax.packing.pairs import fill
from rljax.packing.pairs import mismatched
from rljax.packing.pairs import pack_pairs
from rljax.packing.pairs import take
from rljax.packing.selection import Selection
from rljax.packing.selection import kept_mask
from rljax.packing.selection import statistics

__all__ = [
    'Place', 'Selection', 'check_budget', 'fill', 'join', 'kept_mask',
    'left_over', 'mismatched', 'needs_more', 'pack', 'pack_examples',
    'pack_lists', 'pack_pairs', 'place', 'policy_shares', 'response_index',
    'row_fill', 'rows_bound', 'select', 'select_many', 'statistics', 'take',
    'take_prompts', 'unpack',
]
