//! What people bring: files, directories and archives, told apart by content.

mod archive;
pub mod incidents;
pub(crate) mod lines;
mod recognise;
pub mod settings;
mod sources;
mod stored;
mod utf16;
mod walk;

pub use recognise::{Kind, SAMPLE, looks_like, recognise};
pub use sources::{InputError, Sources};
pub use stored::{Position, Stored};
pub use walk::{Found, Limits, Skipped, Walked};
