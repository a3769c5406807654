"""Reference Perceivers, checkpoint importers, evaluation, reports and the `perceiver-export` command line."""
