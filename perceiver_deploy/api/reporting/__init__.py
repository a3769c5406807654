"""Reports of bundles: what was measured as data (`data`), and a page made from it alone (`page`)."""
