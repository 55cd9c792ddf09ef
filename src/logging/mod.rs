//! Log lines: text or JSON, standard output or syslog, in the router's local time.
