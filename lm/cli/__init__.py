"""The command line: `lm` and its subcommands."""
