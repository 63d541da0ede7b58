"""Supporting cast that knows nothing of traces: files written whole, tables in files, options and their checks."""
