//! The way to the directory, to the atServers, and to a relay, step by step: who comes to a stop says where.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use postern_client::{Client, ClientError, Settings, find_server, home_dir, identity};
use postern_net::proxy;
use postern_net::tasks::Tasks;
use postern_net::tcp::resolve;
use postern_net::tls::{ConnectError, Seen, Trust, Verdict, look, look_at_relay};
use postern_proto::verb::{Info, Lookup};
use postern_proto::{AtSign, Detail, Request, ServerAddress};
use postern_rendezvous::{RelayAddress, RelayRecord};
use serde_json::Value as Json;
use tokio::time::timeout;

use crate::limits::{CERTIFICATE_ENDS_SOON_MS, KNOCKS, STEP};
use crate::{Certificate, Finding, Level, clean, date, key_file, now_ms};

/// Whose way is looked at.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The atDirectory.
    pub root: ServerAddress,
    /// Who we are.
    pub at_sign: AtSign,
    /// Our keys; `None`: in their standard place.
    pub key_file: Option<PathBuf>,
    /// Others whose atServers we need.
    pub others: Vec<AtSign>,
}

/// What the atServer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// A Postern, which tells more.
    pub is_postern: bool,
    /// How far our clock is ahead of its own, in milliseconds; `None`: it does not tell.
    pub skew_ms: Option<i64>,
}

/// How far it goes.
pub struct Way {
    /// What was found, in the order of the steps.
    pub findings: Vec<Finding>,
    /// Logged in, if it went so far.
    pub client: Option<Client>,
    /// The atServer, if it went so far.
    pub server: Option<Server>,
    /// Whose certificates we believe, if that could be read.
    pub trust: Option<Trust>,
}

/// What comes after the first failure is not looked at.
const STEPS: [&str; 6] = ["proxy", "dns", "reach", "certificate", "directory", "login"];

impl Way {
    /// Walks it. `tasks`: stopping them ends the connection.
    pub async fn walk(subject: &Subject, tasks: &Tasks) -> Self {
        let mut way = Self { findings: vec![own_key_file(subject)], client: None, server: None, trust: None };
        let ServerAddress { host, port } = &subject.root;
        let (found, has_proxy) = proxy_of_environment(host, *port);
        if !way.add(found) {
            return way.stopped_at("proxy");
        }
        // Behind a proxy names are the proxy's business.
        if !has_proxy && !way.add(dns(host, *port).await) {
            return way.stopped_at("dns");
        }
        if !way.add(reach("reach", "the atDirectory", host, *port).await) {
            return way.stopped_at("reach");
        }
        let (found, seen) = match Trust::load() {
            Ok(trust) => {
                let looked = certificate(&trust, host, *port).await;
                way.trust = Some(trust);
                looked
            }
            Err(error) => {
                let todo = "mend the file that POSTERN_CA_FILE names, or ~/.config/postern/ca.pem";
                (Finding::fail("certificate", format!("cannot {error}"), todo), None)
            }
        };
        let is_trusted = way.add(found);
        let (true, Some(trust), Some(seen)) = (is_trusted, way.trust.clone(), seen) else {
            return way.stopped_at("certificate");
        };
        let settings = Settings { root: subject.root.clone(), trust, heartbeat: STEP, monitor: None };
        if !way.look_up(subject, &settings).await {
            return way.stopped_at("directory");
        }
        way.log_in(subject, settings, seen.is_postern, tasks).await;
        way
    }

    /// Whether one can go on behind it.
    fn add(&mut self, found: Finding) -> bool {
        let good = found.level != Level::Fail;
        self.findings.push(found);
        good
    }

    fn stopped_at(mut self, step: &str) -> Self {
        let rest = STEPS.iter().skip_while(|name| **name != step).skip(1);
        self.findings.extend(rest.map(|id| Finding::skip(id, format!("not looked at: {step} comes first"))));
        self
    }

    /// Asks for all names; whether our own is known.
    async fn look_up(&mut self, subject: &Subject, settings: &Settings) -> bool {
        let mut own_is_there = false;
        let mut unknown = Vec::new();
        let names = std::iter::once(&subject.at_sign).chain(&subject.others);
        let mut count = 0;
        for name in names {
            count += 1;
            match find_server(settings, name, STEP).await {
                Ok(_) => own_is_there |= *name == subject.at_sign,
                Err(error) => unknown.push((name, error)),
            }
        }
        self.findings.push(match unknown.first() {
            None => Finding::ok("directory", format!("{} knows all {count} atSigns that are needed", subject.root)),
            Some((name, error @ ClientError::NotInDirectory(..))) => Finding::fail(
                "directory",
                format!("{} does not know {name}", subject.root),
                "look at the spelling of the atSign and at --root-domain; on your own server: postern server add",
            )
            .because(error.to_string()),
            Some((_, error)) => Finding::fail("directory", error.to_string(), "is --root-domain an atDirectory?"),
        });
        own_is_there
    }

    async fn log_in(&mut self, subject: &Subject, settings: Settings, is_postern: bool, tasks: &Tasks) {
        let at_sign = &subject.at_sign;
        let Ok(identity) = identity(at_sign, subject.key_file.as_deref()) else {
            return self.findings.push(Finding::skip("login", "not looked at: key-file comes first"));
        };
        let start = Instant::now();
        let client = match timeout(STEP * 2, Client::connect(identity, settings, tasks)).await {
            Ok(Ok((client, _))) => client,
            Ok(Err(error @ ClientError::LoginRefused(..))) => {
                let todo = "use the key file that belongs to this atSign and server; if its enrolment was revoked or has \
                            expired, enrol this device again";
                return self.findings.push(Finding::fail("login", error.to_string(), todo));
            }
            Ok(Err(error)) => {
                let todo = "the atServer of this atSign has to answer; ask who runs it";
                return self.findings.push(Finding::fail("login", error.to_string(), todo));
            }
            Err(_) => {
                let what = format!("the atServer of {at_sign} does not answer");
                return self.findings.push(Finding::fail("login", what, "try again; ask who runs it"));
            }
        };
        let took = start.elapsed();
        self.findings.push(Finding::ok("login", format!("the atServer takes the keys of {at_sign} ({})", ms(took))));
        let server = ask_server(&client, is_postern).await;
        self.findings.push(match &server {
            Some(server) if server.is_postern => fit("versions", &server.version, "the server"),
            Some(server) => Finding::ok("versions", format!("the server is another's program, {}", server.version)),
            None => Finding::skip("versions", "the atServer does not tell its version"),
        });
        (self.client, self.server) = (Some(client), server);
    }
}

fn own_key_file(subject: &Subject) -> Finding {
    match (&subject.key_file, home_dir()) {
        (Some(path), _) => key_file(path),
        (None, Ok(home)) => key_file(&postern_client::default_key_file(&home, &subject.at_sign)),
        (None, Err(error)) => Finding::fail("key-file", error.to_string(), "set HOME, or name the key file with -k"),
    }
}

/// What the environment says of a proxy for this host; whether there is one.
#[must_use]
pub fn proxy_of_environment(host: &str, port: u16) -> (Finding, bool) {
    match proxy::of_environment(host, port) {
        Ok(None) => (Finding::ok("proxy", "none is set for this way"), false),
        Ok(Some(proxy)) => (Finding::ok("proxy", format!("{proxy}")), true),
        Err(error) => {
            let todo = "mend https_proxy or all_proxy in the environment of the service, or unset it";
            (Finding::fail("proxy", error.to_string(), todo), false)
        }
    }
}

/// The addresses of a name.
pub async fn dns(host: &str, port: u16) -> Finding {
    let start = Instant::now();
    let todo = "look at /etc/resolv.conf and at the spelling; try: nslookup";
    match timeout(STEP, resolve(host, port)).await {
        Ok(Ok(found)) => {
            let addresses: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            Finding::ok("dns", format!("{host} is {} ({})", addresses.join(", "), ms(start.elapsed())))
        }
        Ok(Err(error)) => {
            Finding::fail("dns", format!("the name {host} leads to no address"), format!("{todo} {host}"))
                .because(error.to_string())
        }
        Err(_) => Finding::fail("dns", format!("no name server tells the address of {host}"), format!("{todo} {host}")),
    }
}

/// How far it is to a port, through the proxy of the environment.
pub async fn reach(id: &'static str, whose: &str, host: &str, port: u16) -> Finding {
    match knock(host, port).await {
        Ok(times) => Finding::ok(id, format!("{whose} at {host}:{port} answers ({})", shown(&times))),
        Err(error) => {
            let what = format!("{whose} does not answer at {host}:{port}");
            let todo = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    "nothing listens there: is the server running, is the port right?"
                }
                _ => "a firewall may be in between: this port has to be open outwards, or a proxy named in https_proxy",
            };
            Finding::fail(id, what, todo).because(error.to_string())
        }
    }
}

async fn knock(host: &str, port: u16) -> std::io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..KNOCKS {
        let start = Instant::now();
        proxy::connect_tcp(host, port, STEP).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

fn shown(times: &[Duration]) -> String {
    times.iter().map(|time| ms(*time)).collect::<Vec<_>>().join(", ")
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Who made the certificate that we are shown, and whether it will do.
pub async fn certificate(trust: &Trust, host: &str, port: u16) -> (Finding, Option<Seen>) {
    match look(trust, host, port, STEP).await {
        Ok(seen) => (judge(&seen, host, port), Some(seen)),
        Err(error) => {
            let todo = match &error {
                ConnectError::Tls { .. } => {
                    "something answers that does not speak our TLS: is the port right, is a box in between?"
                }
                _ => "try again; if it stays so, a box in between lets TCP through and not TLS",
            };
            (Finding::fail("certificate", error.to_string(), todo), None)
        }
    }
}

fn judge(seen: &Seen, host: &str, port: u16) -> Finding {
    let id = "certificate";
    let read = seen.chain.first().and_then(|der| Certificate::parse(der));
    let issuer = read.as_ref().map_or_else(|| "?".to_owned(), |read| read.issuer.clone());
    let span = read.as_ref().map(|read| format!("{} to {}", date(read.not_before), date(read.not_after)));
    let span = span.unwrap_or_default();
    let at = format!("{host}:{port}");
    match &seen.verdict {
        Verdict::Good => match read {
            Some(read) if read.not_after.saturating_sub(now_ms()) < CERTIFICATE_ENDS_SOON_MS => Finding::warn(
                id,
                format!("the certificate of {at} ends {}", date(read.not_after)),
                "whoever runs the server has to renew it",
            ),
            _ => Finding::ok(id, format!("{at} shows one that we trust, made by {issuer:?}")),
        },
        Verdict::UnknownIssuer => Finding::fail(
            id,
            format!("{at} shows a certificate made by {issuer:?}, whom this machine does not trust"),
            "if that is your own server: copy its ca.pem to ~/.config/postern/ca.pem or name it in POSTERN_CA_FILE. If it is \
             a firewall's name: ask for an exception from TLS inspection for this host",
        )
        .because("either the server has an authority of its own, or somebody in between opens the connection"),
        Verdict::NotYetValid | Verdict::Expired => Finding::fail(
            id,
            format!("the certificate of {at} is good from {span}; the clock here shows {}", date(now_ms())),
            "set the clock of this machine; if it is right, the server's certificate has to be renewed",
        ),
        Verdict::OtherName => Finding::fail(
            id,
            format!("the certificate of {at}, made by {issuer:?}, is for other names"),
            "use the name that the certificate is for with --root-domain, or have one made for this name",
        ),
        Verdict::Bad(why) => {
            Finding::fail(id, format!("the certificate of {at}, made by {issuer:?}, is unfit"), "have a new one made")
                .because(clean(why))
        }
        _ => Finding::fail(id, format!("the certificate of {at} is refused"), "have a new one made"),
    }
}

async fn ask_server(client: &Client, is_postern: bool) -> Option<Server> {
    let before = now_ms();
    let text = timeout(STEP, client.request(Request::Info(Info { brief: false }))).await.ok()?.ok()?;
    let after = now_ms();
    let json: Json = serde_json::from_str(&text).ok()?;
    let version = clean(json.get("version")?.as_str()?);
    // Its answer was made in the middle of the round trip, give or take.
    let ours = before + (after - before) / 2;
    let skew_ms = json.get("currentTimeAsMillis").and_then(Json::as_i64).map(|theirs| ours.saturating_sub(theirs));
    Some(Server { version, is_postern, skew_ms })
}

/// Whether another Postern's version fits to ours: the same but for the last number.
#[must_use]
pub fn fit(id: &'static str, theirs: &str, whose: &str) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let series = |version: &str| version.rsplit_once('.').map(|(series, _)| series.to_owned());
    let theirs = clean(theirs);
    if theirs == ours {
        return Finding::ok(id, format!("{whose} and we are {ours}"));
    }
    let what = format!("{whose} is {theirs}, we are {ours}");
    if series(&theirs) == series(ours) {
        return Finding::ok(id, what);
    }
    Finding::warn(id, what, "update the older one; the two agree on what both know")
}

/// Whether a relay takes connections, and how far it is.
pub async fn relay(client: &Client, trust: &Trust, relay: &AtSign) -> Finding {
    let id = "relay";
    let name = RelayAddress::RECORD.to_owned();
    let lookup = Lookup { bypass_cache: true, detail: Detail::Value, name, owner: relay.clone() };
    let text = match timeout(STEP, client.request(Request::Plookup(lookup))).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) if error.is_no_such_key() => {
            return Finding::skip(
                id,
                format!("{relay} has no record of where it is: a relay of 2024, which is asked each time"),
            );
        }
        Ok(Err(error)) => {
            let todo = "is the relay's name right? postern srvd publishes its place when it starts";
            return Finding::fail(id, format!("where the relay {relay} is cannot be learnt"), todo)
                .because(error.to_string());
        }
        Err(_) => return Finding::fail(id, format!("the atServer of {relay} does not answer"), "ask who runs it"),
    };
    let addresses = RelayRecord::parse(&text).map(|record| record.addresses().to_vec()).unwrap_or_default();
    let Some(first) = addresses.first() else {
        return Finding::fail(id, format!("the record of the relay {relay} names no address"), "ask who runs it");
    };
    let mut failure = None;
    for address in &addresses {
        match reach_relay(trust, address).await {
            Ok(times) => {
                return Finding::ok(
                    id,
                    format!("{relay} at {}:{} answers ({})", address.host(), address.port(), shown(&times)),
                );
            }
            Err(why) => failure = failure.or(Some(why)),
        }
    }
    Finding::fail(
        id,
        format!("the relay {relay} does not answer at {}:{}", first.host(), first.port()),
        "is it running? Its port has to be reachable from here; a firewall may be in between",
    )
    .because(failure.unwrap_or_default())
}

async fn reach_relay(trust: &Trust, address: &RelayAddress) -> Result<Vec<Duration>, String> {
    let times = knock(address.host(), address.port()).await.map_err(|error| error.to_string())?;
    if address.tls() {
        let seen =
            look_at_relay(trust, address.host(), address.port(), STEP).await.map_err(|error| error.to_string())?;
        if seen.verdict != Verdict::Good {
            let issuer = seen.chain.first().and_then(|der| Certificate::parse(der)).map(|read| read.issuer);
            return Err(format!("its certificate is refused, made by {:?}", issuer.unwrap_or_default()));
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_fit() {
        let ours = env!("CARGO_PKG_VERSION");
        assert_eq!(fit("versions", ours, "the server").level, Level::Ok);
        assert_eq!(fit("versions", "99.0.0", "the server").level, Level::Warn);
        assert_eq!(fit("versions", "", "the server").level, Level::Warn);
    }

    #[test]
    fn an_interceptor_is_named() {
        let seen = Seen { chain: Vec::new(), verdict: Verdict::UnknownIssuer, is_postern: false };
        let found = judge(&seen, "a.example", 443);
        assert!(found.level == Level::Fail && found.todo.is_some_and(|todo| todo.contains("POSTERN_CA_FILE")));
    }
}
