//! Certificates and keys of `https` listeners: what is accepted, refused and doubted.

use std::path::Path;

use crate::config::{LoadOptions, Loaded, Problems, load};

fn config(public: &str, private: &str) -> String {
    format!(
        "listen:\n  - {{mode: https, port: 4131}}\n  - {{mode: http, port: 4130}}\nrules: [{{action: deny}}]\n\
         certs:\n  serverPublic: {public}\n  serverPrivate: {private}\n"
    )
}

/// As the daemon would, the file being in the folder of the tests' certificates.
fn load_beside_certificates(text: &str) -> Result<Loaded, Problems> {
    load(text, Path::new("tests/vectors/certificates/config.yml"), LoadOptions::default())
}

#[test]
#[cfg(not(feature = "tls"))]
fn without_tls_there_is_no_such_mode_and_the_error_says_so() {
    let problems = load_beside_certificates(&config("server.pem", "server.key")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "tests/vectors/certificates/config.yml:2:12: listen[0].mode: mode `https` is not part of this build: it was \
         made without TLS"
    );
}

#[cfg(feature = "tls")]
mod with_tls {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Mode, Problem};

    /// The warnings but for one: everybody may read the keys of this repository.
    fn doubts(loaded: &Loaded) -> Vec<&Problem> {
        let is_public = |warning: &&Problem| warning.message.contains("can be read by everybody");
        loaded.warnings.iter().filter(|warning| !is_public(warning)).collect()
    }

    #[test]
    fn a_key_may_be_written_in_several_ways_and_a_chain_may_have_one_certificate() {
        for (public, private) in
            [("server.pem", "server.key"), ("server.pem", "server-sec1.key"), ("other.pem", "other.key")]
        {
            let loaded = load_beside_certificates(&config(public, private)).unwrap();
            assert_eq!(doubts(&loaded), Vec::<&Problem>::new(), "{public} {private}");
            for listener in &loaded.plan.service.listeners {
                assert_eq!(listener.tls.is_some(), listener.mode == Mode::Https);
            }
            // A reload must read them again.
            let folder = Path::new("tests/vectors/certificates");
            assert_eq!(loaded.files, [folder.join(public), folder.join(private)]);
        }
    }

    #[test]
    fn a_key_that_everybody_may_read_is_warned_of() {
        let check = |public_mode: u32, private_mode: u32, expected: &[&str]| {
            let folder = std::env::temp_dir().join(format!("calamary-certs-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            for (name, mode) in [("server.pem", public_mode), ("server.key", private_mode)] {
                let path = folder.join(name);
                std::fs::copy(Path::new("tests/vectors/certificates").join(name), &path).unwrap();
                std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            let text = config("server.pem", "server.key");
            let loaded = load(&text, &folder.join("config.yml"), LoadOptions::default()).unwrap();
            let found: Vec<_> = loaded.warnings.iter().map(|warning| warning.message.clone()).collect();
            let key = folder.join("server.key").display().to_string();
            let expected: Vec<_> = expected.iter().map(|text| text.replace("KEY", &key)).collect();
            assert_eq!(found, expected, "{private_mode:o}");
            std::fs::remove_dir_all(folder).unwrap();
        };
        check(0o644, 0o600, &[]);
        check(0o644, 0o640, &[]);
        check(0o644, 0o604, &["`KEY` can be read by everybody: chmod o-rwx KEY"]);
    }

    #[test]
    fn files_that_no_listener_uses_are_not_read() {
        let text = config("nowhere.pem", "nowhere.key").replace("  - {mode: https, port: 4131}\n", "");
        let loaded = load_beside_certificates(&text).unwrap();
        assert!(loaded.files.is_empty() && loaded.warnings.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file_and_the_key() {
        let check = |public: &str, private: &str, expected: &[&str]| {
            let problems = load_beside_certificates(&config(public, private)).unwrap_err();
            let found: Vec<String> = problems
                .iter()
                .map(|problem| {
                    let message = problem.message.replace("tests/vectors/certificates/", "");
                    format!("{}:{} {}: {message}", problem.line, problem.column, problem.path)
                })
                .collect();
            assert_eq!(found, expected, "{public} {private}");
        };
        check(
            "server.pem",
            "other.key",
            &[
                "7:18 certs.serverPrivate: `other.key`: the key is not that of the certificate in `server.pem`",
            ],
        );
        check(
            "root-first.pem",
            "server.key",
            &[
                "6:17 certs.serverPublic: `root-first.pem`: the key belongs to certificate 2: the server's own must come \
               first, then each that signed the one before it",
            ],
        );
        check(
            "nowhere.pem",
            ".",
            &[
                "6:17 certs.serverPublic: `nowhere.pem` cannot be read: No such file or directory (os error 2)",
                "7:18 certs.serverPrivate: `.` cannot be read: not a regular file",
            ],
        );
        check(
            "README.md",
            "server.pem",
            &[
                "6:17 certs.serverPublic: `README.md` holds no certificate in PEM form, which begins with \
                 `-----BEGIN CERTIFICATE-----`",
                "7:18 certs.serverPrivate: `server.pem` holds no private key in PEM form, which begins with \
                 `-----BEGIN PRIVATE KEY-----`",
            ],
        );
        check(
            "server.pem",
            "encrypted.key",
            &[
                "7:18 certs.serverPrivate: `encrypted.key`: the key is encrypted: nobody could type its password at a start",
            ],
        );
    }

    #[test]
    fn both_files_are_needed() {
        let text = "listen: [{mode: https, port: 1}]\nrules: [{action: deny}]\n";
        let problems = load_beside_certificates(text).unwrap_err();
        let found: Vec<_> =
            problems.iter().map(|problem| (problem.path.as_str(), problem.message.as_str())).collect();
        let message = "is missing: a listener of mode `https` needs a certificate and its key";
        assert_eq!(found, [("certs.serverPublic", message), ("certs.serverPrivate", message)]);
    }

    #[test]
    fn a_certificate_that_is_out_of_date_is_a_warning() {
        let loaded = load_beside_certificates(&config("expired.pem", "server.key")).unwrap();
        let warnings = doubts(&loaded);
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert_eq!(warning.path, "certs.serverPublic");
        assert!(warning.message.ends_with("certificate 1 has expired on 2021-01-31"), "{warning}");
    }

    /// A rule that asks for certificates, with these roots.
    fn with_roots(certs: &str) -> String {
        format!(
            "listen: [{{mode: http, port: 4130}}]\ncerts: {certs}\n\
             rules:\n  - {{cert: [invalid, '!valid'], action: deny}}\n  - {{action: accept}}\n"
        )
    }

    #[test]
    fn roots_are_read_where_a_rule_asks_for_certificates() {
        let folder = Path::new("tests/vectors/certificates");
        let loaded = load_beside_certificates(&with_roots("{caPublic: chain/root.pem}")).unwrap();
        assert!(loaded.plan.trust.is_some());
        assert_eq!(loaded.files, [folder.join("chain/root.pem")]);
        assert!(loaded.summary.contains("\nroots: 1 of tests/vectors/certificates/chain/root.pem"));
        let text = with_roots("{caPublic: nowhere.pem}").replace("cert: [invalid, '!valid'], ", "");
        let loaded = load_beside_certificates(&text).unwrap();
        assert!(loaded.plan.trust.is_none() && loaded.files.is_empty());
    }

    #[cfg(feature = "embedded-roots")]
    #[test]
    fn without_roots_in_the_configuration_there_are_others() {
        let loaded = load_beside_certificates(&with_roots("{}")).unwrap();
        assert!(loaded.plan.trust.is_some() && loaded.files.is_empty());
        assert!(loaded.summary.contains("\nroots: "), "{}", loaded.summary);
    }

    #[test]
    fn roots_that_are_none_are_an_error() {
        let check = |file: &str, expected: &str| {
            let problems =
                load_beside_certificates(&with_roots(&format!("{{caPublic: {file}}}"))).unwrap_err();
            let problems: Vec<_> = problems.iter().collect();
            let [problem] = &problems[..] else { panic!("{problems:?}") };
            assert_eq!((problem.line, problem.path.as_str()), (2, "certs.caPublic"));
            let message = problem.message.replace("tests/vectors/certificates/", "");
            assert!(message.starts_with(expected), "{message}");
        };
        check("nowhere.pem", "`nowhere.pem` cannot be read: No such file");
        check("README.md", "`README.md` holds no certificate in PEM form");
        check("server.key", "`server.key` holds no certificate in PEM form");
    }
}
