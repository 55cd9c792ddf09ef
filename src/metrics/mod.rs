//! Counters, and the thread that serves them.
