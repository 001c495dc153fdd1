//! Where plugins are made: `witgate plugin new` and `witgate plugin build`.
//!
//! Called by the command line alone. Runs the tools of a plugin's own language; what they cannot do
//! for a component is done here. Never on the way of a request.

mod build;
mod component;
mod embedded;
mod error;
mod progress;
mod project;
mod template;
mod tool;

pub use build::build;
pub use error::WorkshopError;
pub use progress::step;
pub use project::{Language, Project};
pub use template::{World, create};
