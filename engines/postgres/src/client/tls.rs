//! TLS to a server: rustls, TLS 1.3, and no authority but those of the address.

use std::{fs, future::Future, io, path::Path, pin::Pin, sync::Arc};

use aws_lc_rs::digest;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};
use tokio_postgres::tls::TlsConnect;
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    bounded::{Bounded, MessageLimit},
    socket::Socket,
};

/// A bundle of public authorities has some 250 KiB; a wrong path may name anything.
const ROOTS_BYTES_MAX: u64 = 8 << 20;

/// What PostgreSQL 17 and later expect of a client that speaks TLS from the first byte on; others
/// ignore it.
const ALPN: &[u8] = b"postgresql";

/// Connects one socket to one server.
pub struct Connect {
    connector: TlsConnector,
    name: ServerName<'static>,
    limit: MessageLimit,
}

impl Connect {
    /// Checks the server's certificate against the authorities in a file, and its name.
    pub fn new(roots: &Path, name: &str, limit: MessageLimit) -> Outcome<Self> {
        let roots = read_roots(roots)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| Failure::new(Code::Internal, "this build has no TLS 1.3", ""))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            Failure::usage("the host in the URL is no name that a certificate can have", "Check the URL.")
        })?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name, limit })
    }
}

fn read_roots(file: &Path) -> Outcome<RootCertStore> {
    let shown = file.display();
    let next = "Give the PEM file of the authority that issued the server's certificate, with sslrootcert=FILE in the URL \
                or as ~/.postgresql/root.crt.";
    let unreadable = |error: &io::Error| {
        Failure::io(Code::Usage, format!("the authorities' file {shown} cannot be read"), error, next)
    };
    let found = fs::metadata(file).map_err(|error| unreadable(&error))?;
    if !found.is_file() || found.len() > ROOTS_BYTES_MAX {
        return Err(unreadable(&io::ErrorKind::InvalidData.into()));
    }
    let bytes = fs::read(file).map_err(|error| unreadable(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|_| unreadable(&io::ErrorKind::InvalidData.into()))?;
        // A bundle may hold old certificates that no verifier takes any more.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(Failure::usage(format!("{shown} has no certificate of an authority"), next));
    }
    Ok(roots)
}

impl TlsConnect<Socket> for Connect {
    type Stream = Bounded<TlsStream<Socket>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Stream>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let stream = self.connector.connect(self.name, stream).await?;
            let certificates = stream.get_ref().1.peer_certificates();
            let binding = certificates.and_then(|chain| server_end_point(chain.first()?));
            Ok(Bounded::with_binding(stream, self.limit, binding))
        })
    }
}

/// RFC 5929, `tls-server-end-point`: the certificate's hash under the hash function of its own
/// signature, where that is one of SHA-2; SHA-256 for older ones.
fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // MD5 and SHA-1 with RSA, SHA-1 with ECDSA; SHA-256 with RSA and with ECDSA.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => &digest::SHA256,
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        // Ed25519 and RSA-PSS have none that is agreed on.
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}
