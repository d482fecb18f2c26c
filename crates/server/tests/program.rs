//! The program as a person uses it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::path::Path;
use std::time::Instant;

use common::process::{Process, run};
use common::{Client, client_config};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn init_add_run_and_an_account_added_meanwhile() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("srv");
    let dir = dir.to_str().unwrap();
    let init = run(&["init", "--dir", dir, "--host", "localhost"]);
    assert!(init.status.success(), "{}", text(&init.stderr));
    assert!(text(&init.stderr).contains("POSTERN_CA_FILE") && init.stdout.is_empty());
    let again = run(&["init", "--dir", dir]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("holds a server already"));

    let mut server = Process::start(Path::new(dir));
    let add = run(&["add", "--dir", dir, "@alice"]);
    let secret = text(&add.stdout).trim_end().to_owned();
    assert!(add.status.success() && secret.len() == 128 && secret.bytes().all(|b| b.is_ascii_hexdigit()));
    // Nothing had to be restarted.
    let tls = client_config(&std::fs::read(temp.path().join("srv/ca.pem")).unwrap());
    let mut client = Client::connect(server.address, tls);
    client.expect("@");
    client.ask("alice", &format!("localhost:{}\r\n@", server.address.port()));
    let tls = client_config(&std::fs::read(temp.path().join("srv/ca.pem")).unwrap());
    let mut client = Client::connect(server.address, tls);
    client.expect("@");
    client.cram("alice", &secret);

    for (args, code, says) in [
        (vec!["add", "--dir", dir, "alice"], 1, "lives here already"),
        (vec!["add", "--dir", dir, "@info"], 1, "a word of the protocol"),
        (vec!["add", "--dir", dir, "@a b"], 2, "cannot contain"),
        (vec!["run", "--dir", "/nonexistent"], 1, "holds no server"),
        (vec!["validate", "--dir", dir], 0, "are good; 1 atSigns"),
        (vec!["remove", "--dir", dir, "@nobody", "--delete-all-data"], 1, "does not live here"),
        (vec!["nonsense"], 2, "unrecognized subcommand"),
    ] {
        let out = run(&args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
        assert!(text(&out.stderr).contains(says), "{args:?}: {}", text(&out.stderr));
    }
    let list = text(&run(&["list", "--dir", dir, "--json"]).stdout);
    assert!(list.starts_with("[{\"atSign\":\"@alice\",\"port\":null,"), "{list}");

    // SIGTERM: stops in order, at once.
    let start = Instant::now();
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(server.child.wait().unwrap().success());
    assert!(start.elapsed().as_secs() < 5);
    client.expect_end();
}

#[test]
fn an_atsign_may_have_a_port_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("srv");
    let dir = dir.to_str().unwrap();
    assert!(run(&["init", "--dir", dir, "--host", "localhost"]).status.success());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(run(&["add", "--dir", dir, "@alice", "--port", &free.port().to_string()]).status.success());
    assert!(run(&["add", "--dir", dir, "@bob"]).status.success());
    let server = Process::start(Path::new(dir));
    let tls = client_config(&std::fs::read(temp.path().join("srv/ca.pem")).unwrap());
    let connect = |to| {
        let mut client = Client::connect(to, std::sync::Arc::clone(&tls));
        client.expect("@");
        client
    };
    connect(server.address).ask("alice", &format!("localhost:{}\r\n@", free.port()));
    common::until("alice's own port", || std::net::TcpStream::connect(free).is_ok());
    let mut own = connect(free);
    // Here it is clear whose names are meant, and nobody else is served.
    own.ask("scan", "data:[]\n@");
    own.ask("alice", "error:AT0003-Exception: invalid command\n@");
    assert!(own.reply("from:@bob").starts_with("error:AT0007-"));
    assert!(own.reply("from:@alice").starts_with("data:_"));
}

#[test]
fn one_line_makes_a_server_and_its_health_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("srv");
    let health = |address: &str| run(&["health", "--dir", dir.to_str().unwrap(), "--listen", address]);
    let start = || Process::start_on(&dir, "127.0.0.1:0", &["--host".to_owned(), "gateway.example".to_owned()]);

    let mut server = start();
    let address = server.address.to_string();
    // Its name leads elsewhere, or nowhere: this machine is asked.
    let answer = health(&address);
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    assert!(text(&answer.stderr).contains("gateway.example answers at "), "{}", text(&answer.stderr));
    server.kill();
    let answer = health(&address);
    assert_eq!(answer.status.code(), Some(1));
    assert!(text(&answer.stderr).contains("gateway.example at "), "{}", text(&answer.stderr));

    // The second time it is there.
    let secret = run(&["add", "--dir", dir.to_str().unwrap(), "@alice"]);
    assert!(secret.status.success());
    drop(start());
    let other = run(&["run", "--dir", dir.to_str().unwrap(), "--host", "other.example"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("is of a server for gateway.example, not for other.example"));

    // Something that accepts and says nothing of our kind.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let answer = health(&deaf.local_addr().unwrap().to_string());
    assert_eq!(answer.status.code(), Some(1), "{}", text(&answer.stderr));
}
