//! The doors of the simulators: plain TCP, or TLS with a certificate made at the start by a CA of its own, so that nobody can
//! mistake one for what it simulates; and connections that can be broken on command. Deliberately absent: HTTP (`vk_http`,
//! `handler`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many clients may shake hands at once.
const HANDSHAKES: usize = 256;

/// A CA's certificate, and what a server needs that it vouches for.
#[derive(Clone)]
pub(super) struct Identity {
    /// The CA, as a PEM file.
    pub(super) ca_pem: String,
    acceptor: TlsAcceptor,
}

impl Identity {
    /// A new CA and a certificate for this machine and `host`, both of which say what is simulated.
    pub(super) fn new(what: &str, host: IpAddr) -> io::Result<Self> {
        Self::made(what, host).map_err(|error| io::Error::other(format!("no certificate could be made: {error}")))
    }

    fn made(what: &str, host: IpAddr) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let named = |name: String| {
            let mut names = DistinguishedName::new();
            names.push(DnType::CommonName, name);
            names
        };
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name = named(format!("event-router simulated {what}"));
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_key = KeyPair::generate()?;
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), host.to_string()];
        let mut server = CertificateParams::new(names.to_vec())?;
        server.distinguished_name = named(format!("simulated {what}"));
        server.use_authority_key_identifier_extension = true;
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key))?;
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self { ca_pem, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

type Handshake = Pin<Box<dyn Future<Output = Option<(Line, SocketAddr)>> + Send>>;

/// Where clients come in.
pub(super) struct Door {
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    handshakes: FuturesUnordered<Handshake>,
}

impl Door {
    pub(super) fn new(listener: TcpListener, identity: Option<&Identity>) -> Self {
        let acceptor = identity.map(|identity| identity.acceptor.clone());
        Self { listener, acceptor, handshakes: FuturesUnordered::new() }
    }
}

impl Listener for Door {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        loop {
            let room = self.handshakes.len() < HANDSHAKES;
            let (stream, client) = tokio::select! {
                come = Listener::accept(&mut self.listener), if room => come,
                // Who cannot shake hands, or not in time, is gone.
                Some(shaken) = self.handshakes.next() => match shaken {
                    Some(line) => return line,
                    None => continue,
                },
            };
            let Some(acceptor) = self.acceptor.clone() else {
                return (Line::new(Stream::Plain(stream)), client);
            };
            self.handshakes.push(Box::pin(async move {
                let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await.ok()?.ok()?;
                Some((Line::new(Stream::Tls(Box::new(stream))), client))
            }));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection with a client.
pub(super) struct Line {
    stream: Stream,
    cutter: Cutter,
}

/// Breaks a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Cutter(Arc<AtomicBool>);

impl Cutter {
    /// Nothing is sent any more: the client sees the connection reset.
    pub(super) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Connected<IncomingStream<'_, Door>> for Cutter {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().cutter.clone()
    }
}

impl Line {
    fn new(stream: Stream) -> Self {
        Self { stream, cutter: Cutter::default() }
    }

    fn whole(&self) -> io::Result<()> {
        if !self.cutter.0.load(Ordering::Acquire) {
            return Ok(());
        }
        let tcp = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        // The system then sends a reset instead of an end. Without it the client sees an end, which is as broken.
        let _set = tcp.set_zero_linger();
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.whole()?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.whole()?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole()?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole()?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
