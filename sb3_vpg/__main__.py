"""``python -m sb3_vpg`` runs the console script ``sb3-vpg``."""

import sys

from sb3_vpg.zoo.cli import main

if __name__ == "__main__":
    sys.exit(main())
