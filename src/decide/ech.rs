//! ECH public names: what stands in the clear where the real name is encrypted.
//!
//! Browsers send an ECH extension in every ClientHello, mostly with nothing in it (GREASE), so its presence proves
//! nothing. The outer SNI does: with real ECH it is the public name that the operator of the servers chose, and hardly
//! anybody visits that name itself.

/// Public names known from the HTTPS records of their operators: Cloudflare publishes this one for every zone with ECH.
const PUBLIC_NAMES: &[&str] = &["cloudflare-ech.com"];

/// Whether `name`, as [`super::name::normalise`] leaves it, is a public name.
pub fn is_public_name(name: &str) -> bool {
    PUBLIC_NAMES.contains(&name)
}
