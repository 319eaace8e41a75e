"""Where finished requests are kept: a file of this pod, a database that replicas share, and the thread that writes to both."""
