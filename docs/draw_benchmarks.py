"""Draw the figures of the benchmarks from the committed lines of JSON."""


def main(folder):
    """Draw all figures into a folder."""
    folder.mkdir(exist_ok=True)
