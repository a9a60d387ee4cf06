"""The audit log: hash-chained, signed, durable; written, read and verified."""
