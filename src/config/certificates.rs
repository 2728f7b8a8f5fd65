//! Files of CA certificates: read when the configuration is, so that one that is missing or is none is told with all other
//! problems, not by a connection that fails at night. Deliberately absent: private keys, which nothing here needs.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::source::{in_words, read_limited};
use super::values::looks_secret;

/// The largest file of certificates that is read, in bytes: a whole system's store has a quarter of it.
const FILE_BYTES: u64 = 1 << 20;

/// The certificates of a PEM file; the error is what was found instead.
pub(super) fn read_certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    // Somebody may have put a secret where a path belongs.
    let path = if looks_secret(file) { "a path that looks like a secret".to_owned() } else { file.to_owned() };
    let text = read_limited(Path::new(file), FILE_BYTES).map_err(|error| format!("{} at {path}", in_words(&error)))?;
    let broken = || format!("what cannot be read as a certificate in {path}");
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|_| broken())?;
    if all.is_empty() {
        return Err(format!("no certificate in {path}"));
    }
    let mut store = RootCertStore::empty();
    for certificate in &all {
        store.add(certificate.clone()).map_err(|_| broken())?;
    }
    Ok(all)
}
