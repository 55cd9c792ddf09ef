//! ECH public names: what stands in the clear where the real name is encrypted.
//!
//! Browsers send an ECH extension in every ClientHello, mostly with nothing in it (GREASE), so its presence proves
//! nothing. The outer SNI does: with real ECH it is the public name that the operator of the servers chose, and hardly
//! anybody visits that name itself.

/// Public names known from the HTTPS records of their operators, one a line, with comments that say whose they are.
const PUBLIC_NAMES: &str = include_str!("ech_public_names.txt");

/// Whether `name`, as [`super::name::normalise`] leaves it, is a public name.
pub fn is_public_name(name: &str) -> bool {
    known().any(|known| known == name)
}

fn known() -> impl Iterator<Item = &'static str> {
    PUBLIC_NAMES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::name::normalise;

    #[test]
    fn the_list_holds_names_as_they_are_compared() {
        assert!(known().count() >= 3);
        for name in known() {
            assert_eq!(normalise(name.as_bytes()).as_deref(), Some(name));
        }
    }

    #[test]
    fn only_whole_names_are_known() {
        assert!(is_public_name("cloudflare-ech.com") && is_public_name("public.tls-ech.dev"));
        for name in ["", "#", "com", "example.com", "www.cloudflare-ech.com", "cloudflare-ech.co"] {
            assert!(!is_public_name(name), "{name}");
        }
    }
}
