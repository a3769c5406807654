"""One module for each command: the functions behind the command line."""
