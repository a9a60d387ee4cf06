"""Records of requests and answers, as Parquet files of a lake: chosen and redacted, written by a process of its own."""
