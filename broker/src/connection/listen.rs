//! Accepts connections on one shard and hands each to the shard with the fewest.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use compio::runtime::fd::PollFd;
use futures_util::{FutureExt, select_biased};

use crate::config::BrokerConfig;
use crate::config::topic::broker_effective;
use crate::controller::Image;
use crate::shard::Shard;
use crate::shard::message::{Accepted, Request};

/// Numbers for connections, across listeners.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
/// How long accepting pauses when the process is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_secs(1);

/// Accepts on `listener` until the broker stops.
pub async fn accept_loop(shard: Rc<Shard>, listener: TcpListener, name: Arc<str>) {
    let listener = match listener
        .set_nonblocking(true)
        .and_then(|()| PollFd::new(listener))
    {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(listener = %name, %error, "cannot listen");
            return;
        }
    };
    loop {
        let ready = select_biased! {
            () = shard.stop.wait().fuse() => return,
            ready = listener.accept_ready().fuse() => ready,
        };
        if let Err(error) = ready {
            tracing::error!(listener = %name, %error, "waiting for connections failed; trying again");
            compio::time::sleep(EXHAUSTED_PAUSE).await;
            continue;
        }
        loop {
            match listener.accept() {
                Ok((stream, peer)) => hand_over(&shard, stream, peer, &name),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(listener = %name, %error, "a connection could not be accepted; accepting pauses for a second");
                    compio::time::sleep(EXHAUSTED_PAUSE).await;
                    break;
                }
            }
        }
    }
}

fn hand_over(shard: &Rc<Shard>, stream: TcpStream, peer: SocketAddr, name: &Arc<str>) {
    let load = |index: &usize| shard.common.metrics[*index].assigned.get();
    let total: u64 = (0..shard.shards).map(|index| load(&index)).sum();
    if total >= connections_max(shard) {
        shard.metrics.connections_refused.add(1);
        if shard.connections.may_complain() {
            tracing::warn!(%peer, open = total, "refused a connection: as many are open as max.connections and the limit of open files (RLIMIT_NOFILE) allow");
        }
        return;
    }
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    // Among equals take turns.
    let turn = |at: usize| (at + id as usize) % shard.shards;
    let target = (0..shard.shards)
        .map(turn)
        .min_by_key(load)
        .unwrap_or(shard.index);
    shard.common.metrics[target].assigned.add_shared(1);
    let accepted = Accepted {
        stream,
        id,
        peer,
        listener: name.clone(),
    };
    shard.exchange.post(target, Request::Connection(accepted));
}

/// `max.connections`, which may change while the broker runs, as far as there are descriptors.
fn connections_max(shard: &Shard) -> u64 {
    let look =
        |image: &Image| broker_effective("max.connections", &shard.config, image, shard.node_id());
    let configured = shard.with_image(look).value.parse().unwrap_or(u64::MAX);
    configured.min(shard.common.connections_max)
}

/// Applies `socket.send.buffer.bytes` and `socket.receive.buffer.bytes`; a refusal costs speed only.
pub(super) fn set_buffer_sizes(stream: &TcpStream, config: &BrokerConfig) {
    use nix::sys::socket::{setsockopt, sockopt};
    if let Ok(bytes @ 1..) = usize::try_from(config.number("socket.send.buffer.bytes")) {
        let _ = setsockopt(stream, sockopt::SndBuf, &bytes);
    }
    if let Ok(bytes @ 1..) = usize::try_from(config.number("socket.receive.buffer.bytes")) {
        let _ = setsockopt(stream, sockopt::RcvBuf, &bytes);
    }
}
