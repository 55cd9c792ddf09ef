//! An authority for tests: a root, an intermediate, and certificates of every kind, made with the openssl tool.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::{TempDir, unique};

/// Long before every test, and long after it.
const PAST: &str = "20200101000000Z";
const FUTURE: &str = "20990101000000Z";

const CONFIG: &str = "[ca]\ndefault_ca=d\n[d]\ndir=.\nnew_certs_dir=.\ndatabase=index.txt\nserial=serial\n\
     default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n";

/// A root and an intermediate of its own.
pub struct Authority {
    dir: TempDir,
    /// Part of the names of its certificates.
    name: u32,
    issued: AtomicUsize,
}

/// A certificate with its key.
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new() -> Authority {
        Self::named(unique())
    }

    /// Another one under the same names.
    pub fn impostor(&self) -> Authority {
        Self::named(self.name)
    }

    fn named(name: u32) -> Authority {
        let authority = Authority { dir: TempDir::new(), name, issued: AtomicUsize::new(0) };
        authority.dir.write("ca.cnf", CONFIG);
        authority.dir.write("index.txt", "");
        authority.dir.write("serial", "1000\n");
        authority.self_signed("root", "CA:TRUE", "");
        authority.request("intermediate");
        authority.sign("intermediate", "root", "basicConstraints=critical,CA:TRUE", PAST, FUTURE);
        authority
    }

    fn openssl(&self, args: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command.args(args).current_dir(&self.dir.0).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.0.join(name)
    }

    /// The root's certificate.
    pub fn root(&self) -> PathBuf {
        self.file("root.pem")
    }

    fn subject(&self, name: &str) -> String {
        format!("/CN=tests {} {name}", self.name)
    }

    fn self_signed(&self, name: &str, constraint: &str, names: &str) {
        let (key, out) = (format!("{name}.key"), format!("{name}.pem"));
        let (subject, constraint) = (self.subject(name), format!("basicConstraints=critical,{constraint}"));
        let mut args =
            vec!["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        args.extend([
            "-keyout",
            &key,
            "-out",
            &out,
            "-days",
            "30",
            "-subj",
            &subject,
            "-addext",
            &constraint,
        ]);
        let names = format!("subjectAltName={names}");
        if names.len() > "subjectAltName=".len() {
            args.extend(["-addext", &names]);
        }
        self.openssl(&args);
    }

    fn request(&self, name: &str) {
        let (key, out, subject) = (format!("{name}.key"), format!("{name}.csr"), self.subject(name));
        let args =
            ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", &key];
        self.openssl(&[&args[..], &["-out", &out, "-subj", &subject]].concat());
    }

    fn sign(&self, name: &str, by: &str, extensions: &str, from: &str, until: &str) {
        self.dir.write("extensions", extensions);
        let of = |suffix: &str| [name, suffix].concat();
        let (signer, key) = (format!("{by}.pem"), format!("{by}.key"));
        let args = ["ca", "-batch", "-config", "ca.cnf", "-notext", "-extfile", "extensions"];
        let dates = ["-startdate", from, "-enddate", until, "-cert", &signer, "-keyfile", &key];
        self.openssl(&[&args[..], &dates[..], &["-in", &of(".csr"), "-out", &of(".pem")]].concat());
    }

    /// A certificate for `dns`, signed by the intermediate, valid between two times of openssl's form.
    pub fn issue_between(&self, dns: &str, from: &str, until: &str) -> Issued {
        let name = format!("leaf{}", self.issued.fetch_add(1, Ordering::Relaxed));
        self.request(&name);
        let extensions = format!("basicConstraints=CA:FALSE\nsubjectAltName=DNS:{dns}\n");
        self.sign(&name, "intermediate", &extensions, from, until);
        let pem = |name: &str| CertificateDer::from_pem_file(self.file(&format!("{name}.pem"))).unwrap();
        Issued { chain: vec![pem(&name), pem("intermediate")], key: self.key(&name) }
    }

    pub fn issue(&self, dns: &str) -> Issued {
        self.issue_between(dns, PAST, FUTURE)
    }

    pub fn expired(&self, dns: &str) -> Issued {
        self.issue_between(dns, PAST, "20250101000000Z")
    }

    pub fn not_yet_valid(&self, dns: &str) -> Issued {
        self.issue_between(dns, "20980101000000Z", FUTURE)
    }

    /// One that nobody else has signed.
    pub fn issue_self_signed(&self, dns: &str) -> Issued {
        let name = format!("self{}", self.issued.fetch_add(1, Ordering::Relaxed));
        self.self_signed(&name, "CA:FALSE", &format!("DNS:{dns}"));
        let pem = CertificateDer::from_pem_file(self.file(&format!("{name}.pem"))).unwrap();
        Issued { chain: vec![pem], key: self.key(&name) }
    }

    fn key(&self, name: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap()
    }
}

impl Issued {
    /// Without what leads from it to the root.
    pub fn without_intermediate(mut self) -> Issued {
        self.chain.truncate(1);
        self
    }

    /// A server with it.
    pub fn server(self) -> Arc<ServerConfig> {
        self.server_of(rustls::ALL_VERSIONS, None)
    }

    /// A server of these versions, that lets in only who has a certificate of the `clients`' root.
    pub fn server_of(
        self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Path>,
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(root) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        Arc::new(builder.with_single_cert(self.chain, self.key).unwrap())
    }
}
