//! The two TLS ends of an intercepted connection: what both have in common for all connections, and what each gets of its
//! own.
//!
//! Sessions are resumed on either side, from memory: rustls' tickets would read a clock that 32-bit routers do not have
//! beyond 2038. A client takes up a session only under the name that it was made for; a server's certificate is looked at
//! whenever one is shown, and whoever resumes has the keys that were agreed on when it was.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig};

use super::super::stream::Role;
use super::MAX_SESSIONS;
use crate::sys::time::TlsClock;

/// Both ends, as all connections have them.
#[derive(Debug)]
pub struct Ends {
    towards_clients: ServerConfig,
    towards_servers: ClientConfig,
}

impl Ends {
    /// Servers are those whose certificates `verifier` accepts.
    ///
    /// # Errors
    /// None with the versions and algorithms that are linked.
    pub fn new(verifier: Arc<dyn ServerCertVerifier>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut towards_clients =
            ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(TlsClock))
                .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(Nobody));
        towards_clients.session_storage = ServerSessionMemoryCache::new(MAX_SESSIONS);
        let mut towards_servers = ClientConfig::builder_with_details(provider, Arc::new(TlsClock))
            .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        towards_servers.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
        Ok(Ends { towards_clients, towards_servers })
    }

    /// Our end towards one server, which is to have this name and is offered these protocols.
    pub fn towards_server(&self, name: ServerName<'static>, alpn: Vec<Vec<u8>>) -> Role {
        let mut config = self.towards_servers.clone();
        config.alpn_protocols = alpn;
        Role::Client(Arc::new(config), name)
    }

    /// Our end towards one client, which gets this certificate and the protocol that the server has chosen.
    pub fn towards_client(&self, leaf: Arc<CertifiedKey>, alpn: Option<&[u8]>) -> Role {
        let mut config = self.towards_clients.clone();
        config.cert_resolver = Arc::new(Only(leaf));
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        Role::Server(Arc::new(config))
    }
}

/// One certificate for whoever asks. Which name is asked for has been looked at before.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Stands where each connection puts its own.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
