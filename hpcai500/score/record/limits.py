"""Limits on a run's records and figures: what is beyond them is refused, never read or shown."""

MOST_RECORD_BYTES = 32 * 2**20
"""Size of a JSON file in a run's folder."""
MOST_RANKING_BYTES = 256 * 2**20
"""Size of a ranking's JSON."""
MOST_KEPT_BYTES = 2**20
"""Size of a file that is kept in memory once read; a larger one is read again when it is needed again."""
MOST_CHECKED = 200
"""Runs whose compliance `rank` checks: about 30 ms each."""
MOST_DETAILED = 200
"""Entries of which a ranking keeps curves and layers."""
MOST_POINTS = 90
"""Points of a curve in a ranking."""
MOST_EXPONENT = 100
MOST_FIGURE = 1e40
MOST_VFLOPS = 1e150
"""Squares stay finite, whatever the exponent."""
MOST_RANKS = 1_000_000_000
MOST_INTEGER = 2**64
MOST_OVERRIDES = 100
LONGEST_TEXT = 200
LONGEST_SHOWN = 10_000
"""A text in a ranking: what is longer is cut where the ranking is made, and refused where it is read."""
