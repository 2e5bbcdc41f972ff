"""`python -m cellrail`: the command line."""

from cellrail.cli import main

main()
