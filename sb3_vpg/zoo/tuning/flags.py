"""The flags of ``best_entry``. See ``sb3_vpg.zoo.cli`` for what it may import."""

import argparse
from pathlib import Path


def best_entry_parser() -> argparse.ArgumentParser:
    """:return: the parser of ``best_entry``"""
    parser = argparse.ArgumentParser(description="Write the best trial of a search as an entry of a hyperparameter file.")
    parser.add_argument(
        "--storage", required=True, help="the same as for optimize: a journal file (.log), or a URL like sqlite:///FILE"
    )
    parser.add_argument("--study-name", help="the same as for optimize; may be left out if the storage has only one study")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="YAML file to write the entry to (default: print it)"
    )
    parser.add_argument("--force", action="store_true", help="replace the entry if the file has one for the environment")
    return parser
