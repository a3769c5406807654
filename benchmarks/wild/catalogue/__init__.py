"""The modules, in the order of the table."""

from wild.catalogue.connectors import CONNECTORS
from wild.catalogue.originals import ORIGINALS
from wild.catalogue.others import OTHERS
from wild.entry import Entry

CATALOGUE: tuple[Entry, ...] = (*CONNECTORS, *ORIGINALS, *OTHERS)
