//! ECHConfigList (RFC 9849 §4): the names under which servers take an encrypted ClientHello.

use crate::wire::cursor::Cursor;

/// Configurations of one list that are read; operators publish one or two.
pub const MAX_CONFIGS: usize = 16;

/// Version of the configurations whose contents are known; others are passed over by their length.
const VERSION: u16 = 0xfe0d;

/// The public names in a list with its length, as DNS carries it (RFC 9848 §3), each once; not checked to be names.
///
/// `None` is malformed: lengths that don't add up. Nothing is taken from such a list, as clients don't.
pub fn public_names(list: &[u8]) -> Option<Vec<&[u8]>> {
    let mut outer = Cursor::new(list);
    let mut configs = outer.vec16().ok()?;
    if !outer.is_empty() {
        return None;
    }
    let mut names = Vec::new();
    for _ in 0..MAX_CONFIGS {
        if configs.is_empty() {
            break;
        }
        let version = configs.u16().ok()?;
        let contents = configs.vec16().ok()?;
        if version == VERSION {
            let name = public_name(contents)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Some(names)
}

/// Of ECHConfigContents.
fn public_name(mut contents: Cursor<'_>) -> Option<&[u8]> {
    let (_config_id, _kem_id) = (contents.u8().ok()?, contents.u16().ok()?);
    let (_public_key, _cipher_suites) = (contents.vec16().ok()?, contents.vec16().ok()?);
    let _maximum_name_length = contents.u8().ok()?;
    let name = contents.vec8().ok()?.rest();
    let _extensions = contents.vec16().ok()?;
    (contents.is_empty() && !name.is_empty()).then_some(name)
}

#[cfg(test)]
pub(crate) mod testing {
    use crate::wire::tls::tests::fixture::{vec8, vec16};

    /// A configuration with this public name.
    pub(crate) fn config(version: u16, name: &str) -> Vec<u8> {
        let contents = [
            &[7, 0, 0x20][..],
            &vec16(&[9; 32]),
            &vec16(&[0, 1, 0, 1]),
            &[0],
            &vec8(name.as_bytes()),
            &vec16(b""),
        ]
        .concat();
        [&version.to_be_bytes()[..], &vec16(&contents)].concat()
    }

    /// A list with its length.
    pub(crate) fn list(configs: &[Vec<u8>]) -> Vec<u8> {
        vec16(&configs.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{config, list};
    use super::*;

    fn check(list: &[u8], expected: Option<&[&str]>) {
        let expected = expected.map(|names| names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        assert_eq!(public_names(list), expected, "{list:x?}");
    }

    #[test]
    fn names_of_the_known_version() {
        check(&list(&[config(VERSION, "a.example")]), Some(&["a.example"]));
        let two = [config(VERSION, "a.example"), config(0xfe0a, "old.example"), config(VERSION, "b.example")];
        check(&list(&two), Some(&["a.example", "b.example"]));
        check(&list(&[config(VERSION, "a.example"), config(VERSION, "a.example")]), Some(&["a.example"]));
        check(&list(&[]), Some(&[]));
        check(&list(&[config(VERSION, "")]), None);
    }

    #[test]
    fn nothing_of_a_list_that_is_cut_off_or_goes_on() {
        let whole = list(&[config(VERSION, "a.example"), config(VERSION, "b.example")]);
        for len in 0..whole.len() {
            check(&whole[..len], None);
        }
        check(&[&whole[..], &[0]].concat(), None);
    }

    #[test]
    fn no_more_than_the_bound() {
        let many: Vec<_> = (0..MAX_CONFIGS + 5).map(|n| config(VERSION, &format!("n{n}.example"))).collect();
        assert_eq!(public_names(&list(&many)).unwrap().len(), MAX_CONFIGS);
    }
}
