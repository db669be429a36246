"""Results of any model, from any of the files in which people keep them: `open_run` reads them as one kind of object.

The readers: tables (our question tables, CSV), records (our response records, Parquet), logged_samples
(lm-evaluation-harness, `--log_samples`) and plain with graded (JSON Lines). Reads files and git; writes nothing.
"""

from stages.data.evaluations.opening import open_run
from stages.data.evaluations.run import Reader, ReadSettings, Run, Trace

__all__ = ["ReadSettings", "Reader", "Run", "Trace", "open_run"]
