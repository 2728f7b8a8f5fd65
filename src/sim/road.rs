//! A bad road to a handler: connections that carry a request there and of its answers only so many bytes, then break, end, fall
//! silent, or crawl. What the handler took it has taken: its answer may be lost. Deliberately absent: HTTP.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How much is carried at once, in bytes.
const STEP: usize = 4096;
/// Where roads begin: no certificate of a simulated handler is for it.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How long a connection that crawls takes for a byte.
const CRAWL: Duration = Duration::from_millis(20);

/// How a connection goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bump {
    /// It is reset.
    Reset,
    /// It ends, as if the answer were whole.
    End,
    /// It stays, and nothing comes any more.
    Silence,
    /// Every further byte takes a while.
    Crawl,
}

/// What becomes of a connection: so many bytes of answers pass, then it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// How many bytes of answers pass.
    pub bytes: usize,
    /// What happens then; nothing is a good road.
    pub bump: Option<Bump>,
}

/// A road; it closes when it is dropped.
pub struct Road {
    address: SocketAddr,
    _traffic: JoinSet<()>,
}

impl Road {
    /// Opens a road to an address; `stretch` says what becomes of the nth connection, from 0.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn to(
        handler: SocketAddr,
        stretch: impl Fn(usize) -> Stretch + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((HERE, 0)).await?;
        let address = listener.local_addr()?;
        let mut traffic = JoinSet::new();
        traffic.spawn(carry_all(listener, handler, Arc::new(stretch)));
        Ok(Self { address, _traffic: traffic })
    }

    /// Where it begins.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

async fn carry_all(listener: TcpListener, handler: SocketAddr, stretch: Arc<dyn Fn(usize) -> Stretch + Send + Sync>) {
    let mut connections = JoinSet::new();
    for place in 0.. {
        let Ok((client, _)) = listener.accept().await else { continue };
        let stretch = stretch(place);
        connections.spawn(async move {
            // A side that has gone is gone.
            let _over = carry(client, handler, stretch).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(client: TcpStream, handler: SocketAddr, stretch: Stretch) -> io::Result<()> {
    let handler = TcpStream::connect(handler).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_handler, mut to_handler) = handler.into_split();
    let there = async { tokio::io::copy(&mut from_client, &mut to_handler).await };
    let back = answers(&mut from_handler, &mut to_client, stretch);
    tokio::select! {
        // Who has sent all may still listen, but these clients never do.
        _ = there => {}
        bump = back => if bump? == Some(Bump::Reset) {
            to_client.as_ref().set_zero_linger()?;
        }
    }
    Ok(())
}

/// Carries answers until something goes wrong.
async fn answers(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, stretch: Stretch) -> io::Result<Option<Bump>> {
    let mut left = stretch.bytes;
    let mut step = vec![0; STEP];
    loop {
        let count = from.read(&mut step).await?;
        if count == 0 {
            return Ok(None);
        }
        let Some(bump) = stretch.bump else {
            to.write_all(&step[..count]).await?;
            continue;
        };
        let passes = count.min(left);
        to.write_all(&step[..passes]).await?;
        left -= passes;
        if left > 0 {
            continue;
        }
        match bump {
            Bump::Reset | Bump::End => return Ok(Some(bump)),
            Bump::Silence => std::future::pending().await,
            Bump::Crawl => {
                for byte in &step[passes..count] {
                    tokio::time::sleep(CRAWL).await;
                    to.write_all(&[*byte]).await?;
                }
            }
        }
    }
}
