//! Node server, client core and transports of dspm.
