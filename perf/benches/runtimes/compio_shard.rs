//! The shard on compio, on a ring with the flags that the broker sets, or with none.

use std::net::SocketAddr;

use compio::BufResult;
use compio::driver::{DriverType, ProactorBuilder};
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::RuntimeBuilder;

/// Starts one; `flags` as `broker/src/shard/runtime.rs` sets them.
pub fn start(flags: bool) -> SocketAddr {
    let (listener, address) = super::listener();
    std::thread::spawn(move || {
        let mut proactor = ProactorBuilder::new();
        proactor.driver_type(DriverType::IoUring);
        if flags {
            proactor
                .single_issuer(true)
                .defer_taskrun(true)
                .coop_taskrun(true)
                .taskrun_flag(true);
        }
        let runtime = RuntimeBuilder::new()
            .with_proactor(proactor)
            .build()
            .expect("io_uring");
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                compio::runtime::spawn(connection(stream)).detach();
            }
        });
    });
    address
}

async fn connection(mut stream: TcpStream) {
    let (mut received, mut answers) = (Vec::new(), Vec::new());
    let mut buffer = Vec::with_capacity(128 << 10);
    loop {
        buffer.clear();
        let BufResult(count, back) = stream.read(buffer).await;
        buffer = back;
        if !count.is_ok_and(|count| count > 0) {
            return;
        }
        received.extend_from_slice(&buffer);
        super::serve(&mut received, &mut answers);
        if answers.is_empty() {
            continue;
        }
        let BufResult(sent, back) = stream.write_all(answers).await;
        answers = back;
        if sent.is_err() {
            return;
        }
        answers.clear();
    }
}
