//! The shard on glommio, as it comes.

use std::net::SocketAddr;

use futures_util::io::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

/// Starts one.
pub fn start() -> SocketAddr {
    // It binds sockets only by itself.
    let (_, address) = super::listener();
    let (ready, told) = std::sync::mpsc::channel();
    LocalExecutorBuilder::new(Placement::Unbound)
        .spawn(move || async move {
            let listener = TcpListener::bind(address).expect("the port that was free");
            ready.send(()).expect("somebody waits");
            while let Ok(stream) = listener.accept().await {
                glommio::spawn_local(connection(stream)).detach();
            }
        })
        .expect("three rings");
    told.recv().expect("it listens");
    address
}

async fn connection(mut stream: TcpStream) {
    let (mut received, mut answers) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 128 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => received.extend_from_slice(&buffer[..count]),
            _ => return,
        }
        super::serve(&mut received, &mut answers);
        if stream.write_all(&answers).await.is_err() {
            return;
        }
        answers.clear();
    }
}
