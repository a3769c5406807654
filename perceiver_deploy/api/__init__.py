"""The functions behind the command line, one module for each command, and what they share."""
