"""`kubectl alise`: a kubectl plugin that says what an AliseEngine does, why a request waits, and what is wrong."""
