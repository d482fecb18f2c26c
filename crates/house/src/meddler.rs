//! A server whose operator changes what passes through it: the real one stands behind, with the real certificate.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use postern_net::tasks::Tasks;
use postern_net::tls::{ServerTls, Trust, connect};
use postern_proto::Request;
use postern_testkit::World;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

/// Changes a request on its way; those it leaves alone pass as they came.
pub type Meddling = fn(&mut Request);

/// On loopback, in front of a house's server.
pub struct Meddler {
    port: u16,
    meddling: Arc<Mutex<Option<Meddling>>>,
}

impl Meddler {
    /// Starts one that changes nothing yet.
    ///
    /// # Errors
    /// There is no port, or the server's certificate cannot be read.
    pub async fn start(world: &World, tasks: &Tasks) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let dir = world.dir().join("server");
        let file = |name: &str| -> std::path::PathBuf { Path::new(&dir).join(name) };
        let tls = ServerTls::from_pem_files(&file("server.pem"), &file("server.key"))?;
        let trust = Trust::only_pem(&std::fs::read(world.ca_file())?)?;
        let (_, real) =
            world.root().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).context("no port")?;
        let real: u16 = real.parse()?;
        let meddling = Arc::new(Mutex::new(None));
        let (inner, told) = (tasks.clone(), Arc::clone(&meddling));
        drop(tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, trust, told) = (tls.clone(), trust.clone(), Arc::clone(&told));
                drop(inner.spawn(async move {
                    let _ = pass(socket, &tls, &trust, (real, port), &told).await;
                }));
            }
        }));
        Ok(Self { port, meddling })
    }

    /// `host:port`, as the house's own.
    pub fn root(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// What it does from now on.
    pub fn meddle(&self, how: Meddling) {
        *self.meddling.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
    }
}

async fn pass(
    socket: tokio::net::TcpStream,
    tls: &ServerTls,
    trust: &Trust,
    (real, own): (u16, u16),
    told: &Mutex<Option<Meddling>>,
) -> anyhow::Result<()> {
    let guest = tls.accept(socket).await?;
    let server = connect(trust, "localhost", real, Duration::from_secs(10)).await?;
    let (from_guest, mut to_guest) = tokio::io::split(guest);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let up = async {
        let mut lines = BufReader::new(from_guest);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).await? > 0 {
            let how = *told.lock().unwrap_or_else(PoisonError::into_inner);
            let text = line.trim_ascii_end();
            let request = if text.starts_with(b"enroll:request") { Request::parse(text).ok() } else { None };
            match (how, request) {
                (Some(how), Some(mut request)) => {
                    how(&mut request);
                    to_server.write_all(format!("{request}\n").as_bytes()).await?;
                }
                _ => to_server.write_all(&line).await?,
            }
            to_server.flush().await?;
            line.clear();
        }
        anyhow::Ok(())
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return anyhow::Ok(());
            }
            // The directory's answer leads back here.
            let text = String::from_utf8_lossy(&buffer[..read]).replace(&format!(":{real}"), &format!(":{own}"));
            to_guest.write_all(text.as_bytes()).await?;
            to_guest.flush().await?;
        }
    };
    tokio::select! {
        outcome = up => outcome,
        outcome = down => outcome,
    }
}
