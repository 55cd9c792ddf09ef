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

#[cfg(feature = "intercept")]
mod with_interception {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;
    use crate::cli::make_ca;

    /// A folder with `ca.pem` and `ca.key` as `--make-ca` leaves them.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("calamary-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            make_ca(path.to_str().unwrap()).unwrap();
            Folder(path)
        }

        /// The path of a file, in the place of the folder's name in problems.
        fn load(&self, public: &str, private: &str, more: &str) -> Result<Loaded, String> {
            let text = format!(
                "listen: [{{port: 4128}}]\nrules: [{{action: intercept}}]\ncerts:\n  interceptPublic: {public}\n  \
                 interceptPrivate: {private}\n  caPublic: ca.pem\n{more}"
            );
            load(&text, &self.0.join("config.yml"), LoadOptions::default())
                .map_err(|problems| problems.to_string().replace(self.0.to_str().unwrap(), "DIR"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_make_ca_makes_is_taken_without_a_doubt() {
        let folder = Folder::new("made-ca");
        let mode = |name: &str| std::fs::metadata(folder.0.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("ca.pem"), mode("ca.key")), (0o700, 0o644, 0o600));
        let loaded = folder.load("ca.pem", "ca.key", "").unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert!(loaded.plan.interception.is_some_and(|interception| interception.pinned.is_none()));
        assert_eq!(loaded.files, [folder.0.join("ca.pem"), folder.0.join("ca.pem"), folder.0.join("ca.key")]);
        let loaded = folder.load("ca.pem", "ca.key", "interceptFallback: true\n").unwrap();
        assert!(loaded.plan.interception.is_some_and(|interception| interception.pinned.is_some()));

        // Never over another.
        let error = make_ca(folder.0.to_str().unwrap()).unwrap_err();
        assert!(error.ends_with("ca.pem is there already: nothing is overwritten"), "{error}");
        std::fs::remove_file(folder.0.join("ca.pem")).unwrap();
        let error = make_ca(folder.0.to_str().unwrap()).unwrap_err();
        assert!(error.ends_with("ca.key is there already: nothing is overwritten"), "{error}");
    }

    #[test]
    fn a_key_that_everybody_may_read_is_warned_of() {
        let folder = Folder::new("public-ca");
        std::fs::set_permissions(folder.0.join("ca.key"), Permissions::from_mode(0o644)).unwrap();
        let warnings = folder.load("ca.pem", "ca.key", "").unwrap().warnings;
        assert!(warnings.iter().any(|w| w.message.contains("can be read by everybody")), "{warnings:?}");
    }

    #[test]
    fn what_is_no_authority_is_refused_with_the_reason() {
        let folder = Folder::new("no-ca");
        let openssl = |command: &str| {
            let output =
                Command::new("openssl").args(command.split(' ')).current_dir(&folder.0).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let subject = "-subj /CN=x -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256";
        openssl(&format!(
            "req -x509 {subject} -keyout leaf.key -out leaf.pem -addext basicConstraints=CA:FALSE"
        ));
        openssl(&format!(
            "req -x509 {subject} -keyout sign.key -out sign.pem -addext keyUsage=digitalSignature"
        ));
        openssl("req -x509 -nodes -newkey rsa:2048 -subj /CN=rsa -keyout rsa.key -out rsa.pem");
        let check = |public: &str, private: &str, want: &str| {
            let error = folder.load(public, private, "").unwrap_err();
            assert_eq!(error, format!("DIR/config.yml:{want}"), "{public} {private}");
        };
        check(
            "leaf.pem",
            "leaf.key",
            "4:20: certs.interceptPublic: `DIR/leaf.pem`: the certificate is not an authority's: it lacks `CA:TRUE`",
        );
        check(
            "sign.pem",
            "sign.key",
            "4:20: certs.interceptPublic: `DIR/sign.pem`: the certificate may not sign others: it lacks `keyCertSign`",
        );
        check(
            "ca.pem",
            "rsa.key",
            "5:21: certs.interceptPrivate: `DIR/rsa.key`: the key is not that of the certificate in `DIR/ca.pem`",
        );
        check(
            "ca.key",
            "ca.key",
            "4:20: certs.interceptPublic: `DIR/ca.key` holds no certificate in PEM form, which begins with `-----BEGIN CERTIFICATE-----`",
        );
        check(
            "none.pem",
            "ca.key",
            "4:20: certs.interceptPublic: `DIR/none.pem` cannot be read: No such file or directory (os error 2)",
        );
        assert!(folder.load("rsa.pem", "rsa.key", "").is_ok());
    }

    #[test]
    fn the_action_needs_both_files_and_nothing_else_reads_them() {
        let text = "listen: [{port: 4128}]\nrules: [{action: intercept}]\n";
        let problems = load_beside_certificates(text).unwrap_err().to_string();
        for key in ["interceptPublic", "interceptPrivate"] {
            assert!(
                problems.contains(&format!("certs.{key}: is missing: `action: intercept` needs")),
                "{problems}"
            );
        }
        let text = "listen: [{port: 4128}]\nrules: [{action: deny}]\ncerts: {interceptPublic: nowhere, interceptPrivate: nowhere}\n";
        assert!(load_beside_certificates(text).unwrap().files.is_empty());
    }
}

#[test]
#[cfg(not(feature = "intercept"))]
fn without_interception_there_is_no_such_action_and_the_error_says_so() {
    let problems =
        load_beside_certificates("listen: [{port: 4128}]\nrules: [{action: intercept}]\n").unwrap_err();
    assert!(
        problems.to_string().ends_with("rules[0].action: the action `intercept` is not part of this build")
    );
}
