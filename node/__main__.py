"""``python -m node`` is the command ``wetread``."""

from node.cli import main

main()
