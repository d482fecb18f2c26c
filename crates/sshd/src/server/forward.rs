//! Forwarded ports.

use postern_net::tcp;
use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::input::Input;
use crate::limits::CHUNK;

/// Between a forwarded port and its target, until both directions have ended.
pub(super) async fn carry(mut socket: TcpStream, channel: &ChannelWriteHalf<Msg>, input: &Input) {
    let _ = tcp::tune(&socket);
    let (mut from, mut to) = socket.split();
    let out = async {
        while let Some(bytes) = input.next().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        input.close();
        let _ = to.shutdown().await;
    };
    let back = async {
        let (mut writer, mut buffer) = (std::pin::pin!(channel.make_writer()), vec![0; CHUNK]);
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if writer.write_all(buffer.get(..n).unwrap_or_default()).await.is_err() {
                break;
            }
        }
        let _ = channel.eof().await;
    };
    tokio::join!(out, back);
    let _ = channel.close().await;
}
