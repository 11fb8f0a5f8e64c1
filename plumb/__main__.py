"""`python -m plumb`: the command line, in the environment that runs it."""

from plumb.main import main

main()
