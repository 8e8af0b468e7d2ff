//! The one parser of dspm's configuration: the TOML file, then `DSPM_<KEY>` variables (dots as underscores), then
//! arguments. Everything that reads configuration (VFS, node, command line, through the C ABI) goes through
//! [`Config::load`], so a key means the same everywhere.
//!
//! Invariants: every key of the file is known or the file is refused with file, line and the nearest key; a value is
//! never guessed (a wrong unit is an error that names what was expected); what is returned fits together.

mod config;
mod document;
mod environment;
mod keys;
mod locate;
mod name;
mod overrides;
mod value;

pub use config::{Config, Origin, Setting};
pub use keys::{KEYS, Key, Kind, Scope};
pub use name::dataset_name;
pub use overrides::overrides_from_json;
pub use value::time;
