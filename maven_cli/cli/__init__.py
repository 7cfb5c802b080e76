"""The command line: parse, call, render. No SQL and no business rules."""
