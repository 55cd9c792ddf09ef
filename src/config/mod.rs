//! stub
pub mod plan;
pub use plan::{Limits, Listener, Log, Mode, Output, Plan, Target, Timeouts};
pub const DEFAULT_CONFIG: &str = "";
pub struct Loaded { pub plan: Plan, pub warnings: Vec<Problem>, pub summary: String }
pub struct Problem; pub struct Problems;
impl std::fmt::Display for Problem { fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
impl std::fmt::Display for Problems { fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
pub fn load_file(_p: &std::path::Path) -> Result<Loaded, Problems> { Err(Problems) }
pub fn load_default() -> Result<Loaded, Problems> { Err(Problems) }
