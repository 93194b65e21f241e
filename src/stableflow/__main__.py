"""`python -m stableflow`: the `stableflow` command."""

from stableflow.cli.launch import main

main()
