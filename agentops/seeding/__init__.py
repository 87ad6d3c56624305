"""History for looking and for benchmarks: runs that ended in the last weeks, with whole logs."""
