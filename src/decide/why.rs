//! The explanation of a decision, rule by rule.
