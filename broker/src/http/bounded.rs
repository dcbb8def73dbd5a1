//! A listener for HTTP that has few connections at a time and none for long, whatever a peer does or leaves undone.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Connections at a time; further ones wait in the socket's queue.
const CONNECTIONS_MAX: usize = 32;
/// After this long a connection is cut; every answer ends its connection, so one is there for a single request.
const LIFETIME: Duration = Duration::from_secs(10);
/// Pause when the system has no descriptor for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_secs(1);

/// The listener.
pub struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    lifetime: Duration,
}

impl Bounded {
    /// Bounds what `listener` accepts.
    pub fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            lifetime: LIFETIME,
        }
    }
}

impl Listener for Bounded {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            let permit = self.permits.clone().acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let end = Box::pin(tokio::time::sleep(self.lifetime));
                    let brief = Brief {
                        stream,
                        end,
                        _permit: permit,
                    };
                    return (brief, peer);
                }
                Err(_) => tokio::time::sleep(EXHAUSTED_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once its time is over.
pub struct Brief {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Brief {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Brief {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Brief {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    //! Only so many at a time, and each only for so long.
    use super::*;

    #[test]
    fn connections_are_few_and_brief() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut bounded = Bounded {
                listener,
                permits: Arc::new(Semaphore::new(1)),
                lifetime: Duration::from_millis(1),
            };
            let _silent = TcpStream::connect(address).await.unwrap();
            let _second = TcpStream::connect(address).await.unwrap();
            let (mut first, _) = bounded.accept().await;
            assert_eq!(bounded.permits.available_permits(), 0);
            // The peer says nothing and does not go; the read ends all the same.
            let mut byte = [0];
            let read = std::future::poll_fn(|context| {
                Pin::new(&mut first).poll_read(context, &mut ReadBuf::new(&mut byte))
            });
            assert_eq!(read.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            drop(first);
            bounded.accept().await;
        });
    }
}
