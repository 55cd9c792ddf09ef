//! Certificates for intercepted connections: an authority that clients trust signs one for each name that they ask for.
//!
//! [`authority`] is that authority, loaded or made; [`leaf`] signs and remembers. What is done with a certificate, and
//! whether there may be one, is decided elsewhere: here nobody has looked at the server's own yet. Private keys are never
//! shown, not even by `Debug`.

pub mod authority;
pub mod leaf;
pub mod pinned;

pub use authority::{Authority, Unfit};
pub use leaf::Minter;
pub use pinned::Pinned;
