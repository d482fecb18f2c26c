//! Notes between two atSigns: keeps one, shares one, tells the friend, prints what the friend tells.
//!
//! ```text
//! POSTERN_CA_FILE=ca.pem cargo run -p postern-client --example notes -- @me @friend localhost:6464 [KEYFILE]
//! ```
//!
//! Ends when a note of the friend's has arrived, or after half a minute.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use postern_client::{Client, RecordOptions, Settings, identity, parse_root};
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_observe::print;
use postern_proto::AtSign;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [me, friend, root, rest @ ..] = words.as_slice() else {
        return Err("usage: notes @me @friend HOST[:PORT] [KEYFILE]".into());
    };
    let key_file = rest.first().map(PathBuf::from);
    let (me, friend) = (AtSign::parse(me)?, AtSign::parse(friend)?);
    let identity = identity(&me, key_file.as_deref())?;
    let settings = Settings {
        root: parse_root(root)?,
        trust: Trust::load()?,
        heartbeat: Duration::from_secs(60),
        monitor: Some(r"\.notes@".into()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks = Tasks::new();
        let (client, mut inbox) = Client::connect(identity, settings, &tasks).await?;

        // For our own devices.
        client.put_own("list.notes", "milk, bread", RecordOptions::default()).await?;
        print(format_args!("kept: {}", *client.get_own("list.notes").await?));

        // For the friend alone, an hour long; and a word that it is there.
        let hour = RecordOptions { life: Some(Duration::from_secs(3600)), ..RecordOptions::default() };
        client.put_shared_with(&friend, "hello.notes", "only you can read this", hour).await?;
        client.notify(&friend, "news.notes", "look at hello.notes", None).await?;
        for key in client.scan(Some(r"\.notes@")).await? {
            print(format_args!("here: {key}"));
        }

        let next = tokio::time::timeout(Duration::from_secs(30), inbox.next()).await;
        if let Ok(Some(push)) = next {
            print(format_args!("{} tells: {}", push.from, *client.open(&push).await?));
            print(format_args!("{} shares: {}", friend, *client.get_shared(&friend, "hello.notes").await?));
        }
        tasks.close_and_wait(Duration::from_secs(1)).await;
        Ok(())
    })
}
